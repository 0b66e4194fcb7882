// The chat template's source, rendered over a fixed conversation.
#include <nlohmann/json.hpp>
#include <string>

#include "core/chat_template/chat_template.h"
#include "core/error.h"
#include "core/tokenizer/utf8.h"
#include "tests/fixtures/tiny_vocabulary.h"
#include "tests/fuzz/target.h"

namespace qwen::fuzz {
namespace {

using Json = nlohmann::ordered_json;

const Json& messages() {
  static const Json made = Json::parse(R"([{"role":"system","content":"be brief"},
    {"role":"user","content":"caf\u00e9 <|im_end|>"},
    {"role":"assistant","content":"","tool_calls":[{"type":"function","function":
      {"name":"f","arguments":{"x":[1,2.5,null,true]}}}]},
    {"role":"tool","content":"42"}])");
  return made;
}

const Json& tools() {
  static const Json made = Json::parse(R"([{"type":"function","function":{"name":"f",
    "description":"adds","parameters":{"type":"object","properties":{"x":{"type":"array"}}}}}])");
  return made;
}

}  // namespace

void run(std::span<const std::byte> input) {
  const std::string source(to_text(input));
  try {
    RenderOptions options;
    options.clock = [] { return std::int64_t{1700000000}; };
    const Rendered rendered = ChatTemplate(source).render(messages(), tools(), options);
    bool before = false;
    for (std::size_t i = 0; i < rendered.segments.size(); ++i) {
      const Segment& s = rendered.segments[i];
      require(!s.text.empty(), "no segment is empty");
      require(i == 0 || s.from_template != before, "neighbours differ in their origin");
      before = s.from_template;
    }
  } catch (const Error& error) {
    require(!error.info().code.empty(), "an error has a code");
  }
}

std::vector<Bytes> seeds() {
  return text_seeds(
      {fixtures::tiny_chat_template(),
       "{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- tool | tojson }}"
       "{%- endfor %}{%- endif %}{%- for m in messages %}{%- if (m.role == 'user') or loop.first "
       "%}{{- m.content | trim }}{%- elif m.tool_calls %}{%- for c in m.tool_calls %}{%- set c = "
       "c.function %}{{- c.name ~ c.arguments | tojson(indent=2) }}{%- endfor %}{%- endif %}"
       "{%- endfor %}",
       "{% set ns = namespace(a=0, b=[]) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}"
       "{% endfor %}{{ ns.a }}{{ messages[::-1] | map(attribute='role') | join(', ') }}",
       "{% macro f(x, y=2) %}{{ x * y // 3 % 5 ** 2 }}{% endmacro %}{{ f(4) }}{{ f(x=-1) | int }}",
       "{{ 'a,b'.split(',') | list | length }}{{ 'x' * 9 | upper }}{{ strftime_now('%Y-%m-%d') }}",
       "{% if messages[0].content is string and 'x' not in messages[0] %}{{ raise_exception('no') "
       "}}{% endif %}{{ {'a': [1, (2, 3)]}['a'][1:] }}{# c #}{% raw %}{{ }}{% endraw %}"});
}

Bytes mutate(const Bytes& input, std::size_t max_bytes, Random& random) {
  static constexpr std::string_view kWords[] = {"{{",
                                                "}}",
                                                "{%",
                                                "%}",
                                                "{%-",
                                                "-%}",
                                                "{#",
                                                "#}",
                                                "{% if ",
                                                "{% elif ",
                                                "{% else %}",
                                                "{% endif %}",
                                                "{% for x in ",
                                                "{% endfor %}",
                                                "{% set x = ",
                                                "{% endset %}",
                                                "{% macro f(x) %}",
                                                "{% endmacro %}",
                                                "{% raw %}",
                                                "{% endraw %}",
                                                "{% break %}",
                                                "loop.index",
                                                "loop.previtem",
                                                "messages",
                                                "tools",
                                                "namespace(",
                                                "range(",
                                                "| tojson",
                                                "| join(",
                                                "| map(",
                                                "| selectattr(",
                                                "| sort",
                                                "| trim",
                                                "| default(",
                                                "| length",
                                                "| list",
                                                "| first",
                                                "| last",
                                                "| int",
                                                "| string",
                                                "| items",
                                                ".split(",
                                                ".strip(",
                                                ".replace(",
                                                ".startswith(",
                                                ".get(",
                                                ".items()",
                                                "[",
                                                "]",
                                                "(",
                                                ")",
                                                "[::-1]",
                                                "[1:",
                                                " is defined",
                                                " is not none",
                                                " is mapping",
                                                " not in ",
                                                " and ",
                                                " or ",
                                                "not ",
                                                "==",
                                                "~",
                                                "**",
                                                "//",
                                                "%",
                                                "-",
                                                "9999999999999999999",
                                                "1e308",
                                                "0.1",
                                                "'",
                                                "\"",
                                                "\\n",
                                                "\\u00e9",
                                                "none",
                                                "true",
                                                ",",
                                                ":",
                                                "=",
                                                "recursive",
                                                "caller()"};
  return mutate_text(input, kWords, max_bytes, random);
}

}  // namespace qwen::fuzz
