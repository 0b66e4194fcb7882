#include "core/backend.h"

namespace qwen {

void Backend::operator()(const Op& op, Tap tap) {
  validate(op);
  if (tape_ != nullptr) {
    tape_->push_back({op, tap});
    return;
  }
  if (observer_ != nullptr) observer_->before(op, tap);
  std::visit([this](const auto& o) { run(o); }, op);
  if (observer_ != nullptr) observer_->after(op, tap);
}

void Backend::replay(const Plan& plan) {
  for (const Node& node : plan) (*this)(node.op, node.tap);
}

}  // namespace qwen
