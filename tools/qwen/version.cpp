// qwen version: what this program is and what was built into it.
#include "tools/qwen/version.h"

#include "backends/registry.h"
#include "tools/qwen/command.h"
#include "tools/qwen/options.h"

namespace qwen::cli {
namespace {

std::string compiler() {
#ifdef __clang__
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

class Version : public Command {
 public:
  std::string name() const override { return "version"; }
  std::string summary() const override { return "this build's version and parts"; }
  void declare(Parser& parser) override { output_.declare(parser); }

  void run(Console& console) override {
    output_.apply(console);
    Json kinds = Json::array();
    std::string list;
    for (const Device& device : devices()) {
      kinds.push_back(device.kind);
      list += (list.empty() ? "" : " ") + device.kind;
    }
    if (output_.json) {
      console.document({{"version", version()},
                        {"compiler", compiler()},
                        {"build_type", QWEN_BUILD_TYPE},
                        {"devices", kinds}});
      return;
    }
    console.write(std::string("qwen ") + version() + "\ncompiler " + compiler() + "\nbuild " +
                  QWEN_BUILD_TYPE + "\ndevices " + list + "\n");
  }

 private:
  OutputOptions output_;
};

}  // namespace

const char* version() { return QWEN_VERSION; }

std::unique_ptr<Command> make_version() { return std::make_unique<Version>(); }

}  // namespace qwen::cli
