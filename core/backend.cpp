#include "core/backend.h"

#include "core/error.h"

namespace qwen {
namespace {

class Replay : public Program {
 public:
  Replay(Backend& backend, Plan plan) : backend_(backend), plan_(std::move(plan)) {}
  void run() override { backend_.execute(plan_); }

 private:
  Backend& backend_;
  Plan plan_;
};

// The error of an op that failed while it ran, with the op's name.
Error named(const Error& error, const Op& op, const Tap& tap) {
  ErrorInfo info = error.info();
  info.message += ", in " + std::string(name(op));
  if (!tap.name.empty()) info.message += " " + std::string(tap.name);
  if (tap.layer >= 0) info.message += " of layer " + std::to_string(tap.layer);
  return Error(std::move(info));
}

}  // namespace

void Backend::operator()(const Op& op, Tap tap) {
  validate(op);
  if (tape_ != nullptr) {
    tape_->push_back({op, tap});
    return;
  }
  if (observer_ != nullptr) observer_->before(op, tap);
  running_ = tap;
  try {
    std::visit([this](const auto& o) { run(o); }, op);
  } catch (const Error& error) {
    if (error.info().exit != Exit::kFailed) throw;
    throw named(error, op, tap);
  }
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
