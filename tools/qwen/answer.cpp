#include "tools/qwen/answer.h"

#include <chrono>
#include <utility>

#include "tools/qwen/interrupt.h"

namespace qwen::cli {
namespace {

// Watches a backend as long as it lives.
class Watch {
 public:
  Watch(Backend& backend, Observer* observer) : backend_(backend) { backend.observe(observer); }
  ~Watch() { backend_.observe(nullptr); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  Backend& backend_;
};

}  // namespace

AnswerText::AnswerText(const Tokenizer* tokenizer, std::vector<std::string> stops)
    : tokenizer_(tokenizer), filter_(std::move(stops)) {
  if (tokenizer != nullptr) decoder_.emplace(*tokenizer);
}

std::string AnswerText::push(std::int32_t id) {
  if (!decoder_)
    return std::exchange(first_, false) ? std::to_string(id) : " " + std::to_string(id);
  // Markup such as <|im_end|>, met with --ignore-eos, is no text.
  if (tokenizer_->type(id) == TokenType::kControl) return {};
  return filter_.push(decoder_->push(id));
}

std::string AnswerText::finish() {
  if (!decoder_) return {};
  std::string text = filter_.push(decoder_->finish());
  return text += filter_.finish();
}

Answer make_answer(Session& session, const Tokenizer* tokenizer, const AnswerRequest& request,
                   const std::function<bool(std::string_view)>& on_text) {
  const auto start = std::chrono::steady_clock::now();
  const AnswerScope scope;
  // A backend that queues steps runs them op by op when it is observed; its steps are short enough
  // to look between them.
  InterruptObserver interrupter(request.observer);
  const bool queues = session.backend().queue_depth() > 0;
  const Watch watch(session.backend(), queues ? request.observer : &interrupter);
  AnswerText stream(tokenizer, request.stops);
  Answer answer;
  const auto emit = [&](const std::string& text) {
    answer.text += text;
    return text.empty() || on_text(text);
  };
  try {
    answer.generation =
        generate(session, 0, request.prompt, 0, request.options, [&](std::int32_t id) {
          // From here on a step is one token: between tokens is soon enough to end.
          session.backend().observe(request.observer);
          const bool wanted = emit(stream.push(id));
          if (interrupted() || !wanted) return Verdict::kInterrupt;
          return stream.stopped() ? Verdict::kStop : Verdict::kContinue;
        });
  } catch (const Interrupted&) {  // before the first token
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    answer.generation.stop = StopReason::kInterrupt;
    answer.generation.prompt_s = spent.count();
  }
  emit(stream.finish());
  return answer;
}

}  // namespace qwen::cli
