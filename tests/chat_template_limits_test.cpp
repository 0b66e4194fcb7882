// What a hostile or damaged template, and hostile messages, cannot do.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "core/chat_template/chat_template.h"
#include "core/error.h"
#include "tests/error_of.h"

namespace qwen {
namespace {

using Json = nlohmann::ordered_json;

std::string qwen_source() {
  std::ifstream file(QWEN_GOLDEN_DIR "/qwen2.5_chat_template.jinja", std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  EXPECT_FALSE(all.str().empty());
  return all.str();
}

std::string render(const std::string& source, const Json& variables = Json::object()) {
  return ChatTemplate(source).render_variables(variables).text();
}

ErrorInfo render_error(const std::string& source, const Json& variables = Json::object()) {
  return error_of([&] { render(source, variables); });
}

std::string repeated(const std::string& text, std::size_t n) {
  std::string all;
  for (std::size_t i = 0; i < n; ++i) all += text;
  return all;
}

TEST(ChatTemplateLimits, SourceSize) {
  const std::size_t limit = std::size_t{1} << 20;
  EXPECT_EQ(render(std::string(limit, 'a')).size(), limit);
  EXPECT_EQ(render_error(std::string(limit + 1, 'a')).code, "template_too_large");
  const ErrorInfo error = render_error(std::string(100'000'000, '{'));
  EXPECT_EQ(error.code, "template_too_large");
  EXPECT_EQ(error.exit, Exit::kModel);
  EXPECT_EQ(error.key, "tokenizer.chat_template");
  EXPECT_NE(error.message.find("100000000"), std::string::npos) << error.message;
}

TEST(ChatTemplateLimits, Nesting) {
  // What fits, and what would overflow the stack without the limit.
  EXPECT_EQ(render("{{ " + repeated("(", 40) + "1" + repeated(")", 40) + " }}"), "1");
  EXPECT_EQ(render(repeated("{% if true %}", 90) + "x" + repeated("{% endif %}", 90)), "x");
  EXPECT_EQ(render("{{ 1" + repeated(" + 1", 250) + " }}"), "251");
  constexpr std::size_t kMany = 50'000;
  for (const std::string& source : std::vector<std::string>{
           "{{ " + repeated("(", kMany),
           "{{ " + repeated("[", kMany),
           "{{ " + repeated("{1:", kMany),
           "{{ " + repeated("not ", kMany) + "1 }}",
           "{{ " + repeated("-", kMany) + "1 }}",
           "{{ 1" + repeated(" + 1", kMany) + " }}",
           "{{ 1" + repeated(" or 1", kMany) + " }}",
           "{{ a" + repeated(".a", kMany) + " }}",
           "{{ a" + repeated("[0]", kMany) + " }}",
           "{{ a" + repeated("|trim", kMany) + " }}",
           "{{ a" + repeated(".strip()", kMany) + " }}",
           "{{ a" + repeated(" if a", kMany) + " }}",
           "{{ 1" + repeated(" if 1 else 1", kMany) + " }}",
           repeated("{% if 1 %}", kMany),
           repeated("{% for a in b %}", kMany),
           repeated("{% set x %}", kMany),
       }) {
    const ErrorInfo error = render_error(source);
    EXPECT_EQ(error.code, "template_too_deep") << source.substr(0, 40) << ": " << error.message;
  }
}

TEST(ChatTemplateLimits, WorkEndsEveryLoop) {
  const std::string big = "range(100000)";
  for (const std::string& source : std::vector<std::string>{
           "{% for a in R %}{% for b in R %}{% endfor %}{% endfor %}",
           "{% for a in R %}{% for b in R %}x{% endfor %}{% endfor %}",
           "{% for a in R %}{% for b in R %}{% for c in R %}{% set x = 1 %}{% endfor %}{% endfor %}"
           "{% endfor %}",
           "{% for a in R %}{% set x = R | list | tojson %}{% endfor %}",
           "{% for a in R %}{% set x = R | list == R | list %}{% endfor %}",
           "{% set l = R | list %}{% for a in R %}{% set x = -1 in l %}{% endfor %}",
           "{% set ns = namespace(l=[]) %}{% for a in R %}{% set ns.l = ns.l + [a] %}{% endfor %}",
           "{% set s = 'ab' * 1000000 %}{% for a in R %}{% set x = s | length %}{% endfor %}",
           "{% set s = 'ab' * 1000000 %}{% for a in R %}{% set x = s == s ~ '' %}{% endfor %}",
           "{% set s = 'ab' * 1000000 %}{% for a in R %}{% set x = 'ba' * 9000 ~ 'x' in s %}{% "
           "endfor %}",
           "{% set s = 'ab' * 1000000 %}{% for a in R %}{% set x = s[-1] %}{% endfor %}",
           "{% set s = 'ab' * 1000000 %}{% for a in R %}{% set x = s.rsplit('b' * 9000) %}{% "
           "endfor %}",
           "{% set s = 'ab' * 1000000 %}{% for a in R %}{% set x = s.strip('c' * 9000 ~ 'ab') %}{% "
           "endfor %}",
           "{% set s = 'ab' * 1000000 %}{% for a in R %}{% set x = s.split('a') %}{% endfor %}",
           "{% set s = 'ab' * 1000000 %}{% for a in R %}{% set x = s | replace('a', 'c') %}{% "
           "endfor %}",
           "{% set s = 'ab' * 1000000 %}{% for a in R %}{% set x = s < s ~ '' %}{% endfor %}",
           "{% macro f() %}{% for a in R %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
           "{% for a in R %}{% set x = R | map('string') | list %}{% endfor %}",
           "{% set l = [[]] * 100000 %}{% for a in R %}{% set x = l | string %}{% endfor %}",
           "{% set ns = namespace(t=(1, 2)) %}{% for a in range(60) %}{% set ns.t = (ns.t, ns.t) %}"
           "{% endfor %}{{ {}[ns.t] }}",
           "{% for a in R %}{% set x = ('ab' * 100000) | list %}{% set x = ('ab' * 100000)[::2] %}"
           "{% endfor %}",
           "{% for a in R %}{% set x = namespace(a=1) %}{% for b in R %}{% set x = namespace(a=1) "
           "%}"
           "{% endfor %}{% endfor %}",
       }) {
    std::string full = source;
    for (std::size_t at; (at = full.find(" R ")) != std::string::npos;) {
      full.replace(at + 1, 1, big);
    }
    const ErrorInfo error = render_error(full);
    EXPECT_TRUE(error.code == "template_limit" || error.code == "template_too_deep")
        << source << ": " << error.code << " " << error.message;
    EXPECT_EQ(error.exit, Exit::kModel);
  }
}

TEST(ChatTemplateLimits, GrowthEndsBeforeTheMemoryDoes) {
  const std::string loop = "{% for i in range(1000) %}";
  for (const std::string& source : std::vector<std::string>{
           std::string("{{ 'x' * 100000000000 }}"),
           std::string("{{ 'xy' * 18446744073709551615 }}"),
           std::string("{{ [0] * 100000000000 }}"),
           std::string("{{ ('x' * 10000000) | replace('', 'x' * 10000000) }}"),
           std::string("{{ [1, [2]] | tojson(indent='x' * 10000000) }}"),
           std::string("{{ range(100000) | list | tojson(separators=('x' * 1000000, '')) }}"),
           std::string("{{ range(100000) | join('x' * 1000000) }}"),
           "{% set ns = namespace(x='ab') %}" + loop + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
           "{% set ns = namespace(x='ab') %}" + loop + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
           "{% set ns = namespace(x=[0]) %}" + loop + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
           "{% set ns = namespace(x=[0]) %}" + loop + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}",
           "{% set ns = namespace(x=[0]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
           "{% endfor %}{{ ns.x | tojson }}",
           "{% set ns = namespace(x=[0]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
           "{% endfor %}{{ ns.x == ns.x + [] }}{{ ns.x }}",
           "{% set s = 'x' * 10000000 %}" + loop + "{{ s }}{% endfor %}",
           "{% set s = 'x' * 10000000 %}" + loop + "{% set t = s ~ i %}{% endfor %}",
           "{% set s = 'x' * 1000000 %}{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}"
           "{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
       }) {
    const ErrorInfo error = render_error(source);
    EXPECT_TRUE(error.code == "template_limit" || error.code == "template_too_deep")
        << source << ": " << error.code << " " << error.message;
  }
}

TEST(ChatTemplateLimits, DepthOfValuesAndCalls) {
  EXPECT_EQ(render_error("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}").code,
            "template_too_deep");
  EXPECT_EQ(render_error("{% set ns = namespace(x=1) %}{% for i in range(9999) %}"
                         "{% set ns.x = {'a': ns.x} %}{% endfor %}")
                .code,
            "template_too_deep");
  // Cycles through namespaces hold each other and are freed all the same (AddressSanitizer tells).
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}"
                   "{{ ns.me.me.l[0].me is defined }}"),
            "True");
  EXPECT_EQ(render("{% set ns = namespace(v=none) %}{% for i in range(50000) %}"
                   "{% set ns.v = namespace(v=ns.v) %}{% endfor %}{{ ns.v.v.v is defined }}"),
            "True");
  Json deep = 1;
  for (int i = 0; i < 150; ++i) deep = Json::array({deep});
  EXPECT_EQ(render("{{ x | tojson | length }}", {{"x", deep}}), "301");
  for (int i = 0; i < 100; ++i) deep = Json::array({deep});
  const ErrorInfo error = render_error("{{ x | tojson }}", {{"x", deep}});
  EXPECT_EQ(error.code, "input_too_deep");
  EXPECT_EQ(error.exit, Exit::kUsage);
}

TEST(ChatTemplateLimits, GrowWithTheInput) {
  // 20 MB in one message, and 20,000 messages: ordinary templates stay within the allowance.
  const ChatTemplate chat_template(qwen_source());
  const std::string content(20'000'000, 'x');
  const Json one = {{{"role", "user"}, {"content", content}}};
  EXPECT_NE(chat_template.render(one, nullptr).text().find(content), std::string::npos);
  Json many = Json::array();
  for (int i = 0; i < 20'000; ++i) many.push_back({{"role", "user"}, {"content", "hi"}});
  EXPECT_EQ(chat_template.render(many, nullptr).segments.size(), 80'001u);
}

TEST(ChatTemplateLimits, DamagedTemplatesNeverCrash) {
  const std::string original = qwen_source();
  const std::vector<std::string> pieces = {
      "{{",       "}}",     "{%",       "%}",          "{#",       "#}",        "-",
      "'",        "\"",     "(",        ")",           "[",        "]",         "{",
      "}",        ".",      "|",        "if ",         "else",     "endif",     "for ",
      "endfor",   " in ",   "not",      "is ",         "set ",     "loop",      "9999999",
      "messages", "[::-1]", "tojson",   "\\",          "\n",       "\xff",      "\xe4\xbd",
      "*",        "~",      "range(9)", "namespace()", ".items()", "macro m()", "endmacro",
      "=",        ",",      ":",        "==",
  };
  const Json messages = {{{"role", "system"}, {"content", "Be brief."}},
                         {{"role", "user"}, {"content", "1+1?"}},
                         {{"role", "assistant"}, {"content", "2"}}};
  std::mt19937 random(20240607);
  const auto below = [&](std::size_t n) { return random() % n; };
  int parsed = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string source = original;
    for (std::size_t n = 1 + below(round % 4 == 0 ? 40 : 3); n > 0; --n) {
      const std::size_t at = below(source.size());
      const std::size_t length = std::min(below(30), source.size() - at);
      switch (below(5)) {
        case 0:
          source.erase(at, length);
          break;
        case 1:
          source.insert(at, pieces[below(pieces.size())]);
          break;
        case 2:
          source.replace(at, std::min<std::size_t>(length, 3), pieces[below(pieces.size())]);
          break;
        case 3:
          source[at] = static_cast<char>(random());
          break;
        default:
          source.insert(below(source.size()), source.substr(at, length * 4));
      }
      if (source.empty()) source = "x";
    }
    const ErrorInfo error = error_of([&] {
      const ChatTemplate chat_template(source);
      ++parsed;
      chat_template.render(messages, nullptr);
    });
    EXPECT_TRUE(error.code.empty() || error.code.starts_with("template_"))
        << error.code << ": " << source;
  }
  EXPECT_GT(parsed, 200);  // otherwise the interpreter was never reached
}

}  // namespace
}  // namespace qwen
