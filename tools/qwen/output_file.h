// A file that an option names and the program writes.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

namespace qwen::cli {

class OutputFile {
 public:
  // Empties the file; `option` names it in errors: "--trace". Throws Error (Exit::kUsage) if it
  // cannot be written, or is the model's.
  OutputFile(const std::string& option, const std::string& path, const std::string& model_path);

  // At once: what was written is there even if the program ends badly. Throws Error.
  void write(std::string_view text);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string name_;  // the option and the path
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace qwen::cli
