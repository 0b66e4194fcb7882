#include "tools/qwen/cross_check_page.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "tools/qwen/cross_check_detail.h"
#include "tools/qwen/divergence_text.h"

namespace qwen::cli {
namespace {

using crosscheck::Check;
using crosscheck::ShadowResult;

using Token = std::pair<std::int32_t, std::int64_t>;  // sequence and position

// A check in two characters of six bits, as cross_check_page.js reads it: 10 bits of the ratio, on
// a log scale of 1020 steps from 1e-4 to 1e4 whose middle is the tolerance; whether the bits are
// the same; whether the bounds say nothing.
constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr int kZero = 1, kFirst = 2, kSteps = 1020, kInfinite = 1023;
constexpr double kDecades = 8;
// Rows of the table of divergences: a fault in every layer and step has tens of thousands.
constexpr std::size_t kMaxDivergences = 500;

int ratio_code(float ratio) {
  if (ratio == 0) return kZero;
  if (!std::isfinite(ratio)) return kInfinite;
  const double place = (std::log10(double{ratio}) / kDecades + 0.5) * kSteps;
  // Rounded up to a whole step, so that what meets its tolerance stays below the middle.
  return kFirst + std::clamp(static_cast<int>(std::ceil(place)) - 1, 0, kSteps - 1);
}

std::string check_code(const Check& check) {
  const int bits = ratio_code(check.ratio) | check.same_bits << 10 | check.unsound << 11;
  return {kDigits[static_cast<std::size_t>(bits / 64)],
          kDigits[static_cast<std::size_t>(bits % 64)]};
}

// Of the bit-for-bit strip: all layers of one value together.
struct Strip {
  std::string name;
  std::string data;  // per token ' ' no check, '=' same bits, '~' other bits that pass, 'x' differs
  std::int64_t checks = 0;
  std::int64_t differ = 0;
};

class Heat {
 public:
  explicit Heat(const ShadowResult& shadow) {
    for (const Check& c : shadow.checks) {
      if (is_token(c)) columns_[{c.seq, c.token}] = 0;
    }
    std::size_t n = 0;
    for (auto& [token, column] : columns_) column = n++;
    const Check* first = shadow.checks.data();
    for (const crosscheck::Judged& judged : shadow.judged) {
      add(judged, std::span(first, judged.n_checks));
      first += judged.n_checks;
    }
  }

  Json json() const {
    Json tokens = Json::array();
    for (const auto& [token, column] : columns_) tokens.push_back({token.first, token.second});
    Json cells = Json::array();
    for (const auto& [place, data] : cells_) {
      cells.push_back({{"op", place.first}, {"layer", place.second}, {"data", data}});
    }
    Json exact = Json::array();
    for (const Strip& s : strips_) {
      exact.push_back(
          {{"name", s.name}, {"data", s.data}, {"checks", s.checks}, {"differ", s.differ}});
    }
    return {{"tokens", tokens}, {"cells", cells}, {"exact", exact}};
  }

 private:
  using Place = std::pair<std::string, int>;  // value and layer

  // Not a row of the page table, nor a slot of a page that no sequence has.
  static bool is_token(const Check& check) { return check.seq >= 0 && check.token >= 0; }

  void add(const crosscheck::Judged& judged, std::span<const Check> checks) {
    if (judged.contract) {
      std::string& data = data_of({value_name(judged.tap, judged.output), judged.tap.layer});
      for (const Check& check : checks) {
        data.replace(2 * columns_.at({check.seq, check.token}), 2, check_code(check));
      }
      if (judged.tap.name != "embed") return;
    }
    const std::string tap(judged.tap.name);
    const std::string output(judged.output);
    const bool cache = output == "k_cache" || output == "v_cache";
    Strip& strip = strip_of(judged.contract ? tap : cache ? tap + " " + output : output);
    for (const Check& check : checks) add(strip, check);
  }

  void add(Strip& strip, const Check& check) const {
    const bool differs = check.ratio > 1;
    ++strip.checks;
    strip.differ += differs;
    if (!is_token(check)) return;
    char& kind = strip.data[columns_.at({check.seq, check.token})];
    const char own = differs ? 'x' : check.same_bits ? '=' : '~';
    constexpr std::string_view kOrder = " =~x";
    if (kOrder.find(own) > kOrder.find(kind)) kind = own;
  }

  std::string& data_of(const Place& place) {
    const auto known = std::find_if(cells_.begin(), cells_.end(),
                                    [&](const auto& cell) { return cell.first == place; });
    if (known != cells_.end()) return known->second;
    return cells_.emplace_back(place, std::string(2 * columns_.size(), kDigits[0])).second;
  }
  Strip& strip_of(const std::string& name) {
    const auto known = std::find_if(strips_.begin(), strips_.end(),
                                    [&](const Strip& s) { return s.name == name; });
    if (known != strips_.end()) return *known;
    strips_.push_back({name, std::string(columns_.size(), ' ')});
    return strips_.back();
  }

  std::map<Token, std::size_t> columns_;
  std::vector<std::pair<Place, std::string>> cells_;  // in execution order
  std::vector<Strip> strips_;
};

std::string markup_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else {
      out += c;
    }
  }
  return out;
}

// Inside <script>: whatever would end it or begin a comment begins with '<', which in JSON only
// strings hold.
std::string script_data(const Json& json) {
  std::string out;
  for (const char c : json.dump(-1, ' ', true, Json::error_handler_t::replace)) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string cross_check_page(const Json& document, const ShadowResult& shadow,
                             const std::string& summary) {
  Json data = document;
  data["heat"] = Heat(shadow).json();
  const std::size_t n_divergences = document.value("divergences", Json::array()).size();
  if (n_divergences > kMaxDivergences) {
    Json& shown = data["divergences"];
    shown.erase(shown.begin() + kMaxDivergences, shown.end());
    data["divergences_left_out"] = n_divergences - kMaxDivergences;
  }
  const std::pair<std::string_view, std::string> parts[] = {
      {"@SUMMARY@", markup_text(summary)},
      {"@DATA@", script_data(data)},
      {"@SCRIPT@", std::string(kPageScript)},
  };
  std::string page;
  std::string_view rest = kPageHtml;
  for (const auto& [mark, text] : parts) {
    const std::size_t at = rest.find(mark);
    page += std::string(rest.substr(0, at)) + text;
    rest.remove_prefix(at + mark.size());
  }
  return page + std::string(rest);
}

}  // namespace qwen::cli
