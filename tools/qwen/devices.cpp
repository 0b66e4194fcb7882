// qwen devices: what can be used here, and why the rest cannot.
#include "backends/registry.h"
#include "tools/qwen/command.h"
#include "tools/qwen/format.h"
#include "tools/qwen/options.h"

namespace qwen::cli {
namespace {

class Devices : public Command {
 public:
  std::string name() const override { return "devices"; }
  std::string summary() const override { return "what can be used here, and why the rest cannot"; }
  void declare(Parser& parser) override { output_.declare(parser); }

  void run(Console& console) override {
    output_.apply(console);
    Json list = Json::array();
    std::string text;
    for (const Device& d : devices()) {
      list.push_back({{"kind", d.kind},
                      {"name", d.name},
                      {"usable", d.usable},
                      {"why_not", d.usable ? Json(nullptr) : Json(d.why_not)},
                      {"memory_bytes", d.memory_bytes},
                      {"memory_free_bytes", d.memory_free_bytes},
                      {"features", d.features}});
      text += d.kind;
      if (!d.name.empty()) text += "  " + d.name;
      if (d.memory_bytes > 0) {
        text +=
            "  " + bytes_text(d.memory_free_bytes) + " of " + bytes_text(d.memory_bytes) + " free";
      }
      for (const std::string& feature : d.features) text += "  " + feature;
      if (!d.usable) text += "  cannot be used: " + d.why_not;
      text += "\n";
    }
    if (output_.json) {
      console.document({{"devices", list}});
    } else {
      console.write(text);
    }
  }

 private:
  OutputOptions output_;
};

}  // namespace

std::unique_ptr<Command> make_devices() { return std::make_unique<Devices>(); }

}  // namespace qwen::cli
