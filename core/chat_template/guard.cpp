#include "core/chat_template/guard.h"

#include <utility>

namespace qwen::jinja {

namespace {

// An error message is one line; raise_exception may have been given anything.
std::string one_line(std::string text) {
  constexpr std::size_t kMaxMessage = 500;
  if (text.size() > kMaxMessage) {
    std::size_t end = kMaxMessage;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text.resize(end);
    text += "...";
  }
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return text;
}

constexpr const char* kLimitHint =
    "the template or the messages are unreasonably large, or the template does not end; give "
    "another template";

}  // namespace

void fail_at(Location at, Exit exit, std::string code, const std::string& message,
             std::string hint) {
  ErrorInfo info;
  info.exit = exit;
  info.code = std::move(code);
  info.message = "chat template, line " + std::to_string(at.line) + ", column " +
                 std::to_string(at.column) + ": " + one_line(message);
  info.hint = std::move(hint);
  info.key = "tokenizer.chat_template";
  throw Error(std::move(info));
}

void Guard::fail(const std::string& message) const {
  fail_at(at, Exit::kUsage, "template_failed", message,
          "the messages do not have the form that this model's chat template expects");
}

void Guard::unsupported(const std::string& message) const {
  fail_at(at, Exit::kModel, "template_unsupported", message,
          "give another template; this one uses a part of Jinja that is not built in");
}

void Guard::too_deep(const std::string& message) const {
  fail_at(at, Exit::kModel, "template_too_deep", message, kLimitHint);
}

void Guard::out_of_work() const {
  fail_at(at, Exit::kModel, "template_limit", "the template takes too many steps", kLimitHint);
}

void Guard::text_too_long() const {
  fail_at(at, Exit::kModel, "template_limit", "the template makes too long a text", kLimitHint);
}

}  // namespace qwen::jinja
