// The JSON of `qwen template`: messages from anybody, through a template that looks at all of them.
#include <nlohmann/json.hpp>
#include <string>

#include "core/chat_template/chat_template.h"
#include "core/error.h"
#include "core/tokenizer/utf8.h"
#include "tests/fuzz/target.h"
#include "tools/qwen/json_input.h"

namespace qwen::fuzz {
namespace {

const ChatTemplate& chat_template() {
  static const ChatTemplate made(
      "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{% if m.tool_calls %}"
      "{{ m.tool_calls | tojson }}{% endif %}{% if m is mapping %}{% for k, v in m.items() %}"
      "{{ k ~ v }}{% endfor %}{% endif %}{% endfor %}{{ tools | tojson(indent=1) }}");
  return made;
}

}  // namespace

void run(std::span<const std::byte> input) {
  try {
    const auto json = cli::parse_json_list(std::string(to_text(input)), "input", "messages");
    const std::string text = chat_template().render(json, json).text();
    require(find_invalid_utf8(text) == text.npos, "what is rendered is UTF-8");
  } catch (const Error& error) {
    require(!error.info().code.empty(), "an error has a code");
    require(error.info().exit == Exit::kUsage || error.info().code == "template_limit" ||
                error.info().code == "template_too_deep",
            "bad input is the user's error");
  }
}

std::vector<Bytes> seeds() {
  return text_seeds(
      {R"([{"role":"user","content":"hi"}])",
       R"([{"role":"assistant","content":null,"tool_calls":[{"id":1,"f":{"x":[1e308,-0.0]}}]}])",
       R"([{"role":"\ud83d\ude00","content":["a",{"type":"text","text":"\u0000"}]},7,"x",[[]]])",
       R"({"role":"user"})", "[[[[[[[[[[]]]]]]]]]]", "[123456789012345678901234567890]"});
}

Bytes mutate(const Bytes& input, std::size_t max_bytes, Random& random) {
  static constexpr std::string_view kWords[] = {"[",
                                                "]",
                                                "{",
                                                "}",
                                                "\"",
                                                ":",
                                                ",",
                                                "\"role\":",
                                                "\"content\":",
                                                "\"tool_calls\":",
                                                "null",
                                                "true",
                                                "1e999",
                                                "-0",
                                                "1e-400",
                                                "18446744073709551616",
                                                "\\ud800",
                                                "\\udc00",
                                                "\\u0000",
                                                "\xff",
                                                "\xc3\xa9",
                                                "[[[[[[[[",
                                                "]]]]]]]]",
                                                "{\"a\":",
                                                "[{}],",
                                                "//",
                                                "\xef\xbb\xbf"};
  return mutate_text(input, kWords, max_bytes, random);
}

}  // namespace qwen::fuzz
