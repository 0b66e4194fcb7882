#include "core/backend.h"

namespace qwen {
namespace {

class Replay : public Program {
 public:
  Replay(Backend& backend, Plan plan) : backend_(backend), plan_(std::move(plan)) {}
  void run() override { backend_.replay(plan_); }

 private:
  Backend& backend_;
  Plan plan_;
};

}  // namespace

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

void Backend::execute(const Plan& plan) {
  if (observed() || tape_ != nullptr) {
    replay(plan);
  } else {
    execute_unobserved(plan);
  }
}

std::unique_ptr<Program> Backend::compile(Plan plan) {
  return std::make_unique<Replay>(*this, std::move(plan));
}

}  // namespace qwen
