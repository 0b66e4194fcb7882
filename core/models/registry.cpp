#include "core/error.h"
#include "core/models/qwen2.h"

namespace qwen {

std::unique_ptr<Model> load_model(ModelFile& file, Backend& backend) {
  const std::string arch = file.string("general.architecture");
  if (arch == "qwen2") return std::make_unique<Qwen2>(file, backend);
  throw Error({.exit = Exit::kModel,
               .code = "unsupported_architecture",
               .message = "architecture '" + arch + "' is not supported (qwen2 is)",
               .hint = "qwen runs Qwen2 and Qwen2.5 models",
               .key = "general.architecture"});
}

}  // namespace qwen
