#include "tools/qwen/sampling.h"

#include <array>
#include <charconv>
#include <limits>
#include <random>

#include "core/error.h"
#include "tools/qwen/format.h"
#include "tools/qwen/numbers.h"

namespace qwen::cli {
namespace {

constexpr RealRange kTemp{0, std::numeric_limits<float>::max()};
constexpr RealRange kTopP{0, 1, true};
constexpr RealRange kMinP{0, 1};
constexpr RealRange kPenalty{0, std::numeric_limits<float>::max(), true};

// A float of the file as the decimal that was meant: 0.7f is 0.7, not 0.699999988079071.
double as_written(float value) {
  std::array<char, 64> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  double out = value;
  std::from_chars(text.data(), end, out);
  return out;
}

// A key of the file, and what its value may be.
struct Suggestion {
  const char* key;
  RealRange range;
  const std::string& path;
};

void suggest(Setting<double>& setting, const std::optional<float>& value, const Suggestion& from) {
  if (!value || setting.chosen()) return;
  const double number = as_written(*value);
  if (!contains(from.range, number)) {
    throw Error({.exit = Exit::kModel,
                 .code = "bad_value",
                 .message = "metadata key '" + std::string(from.key) + "' is " +
                            short_number(number) + ", which is out of range",
                 .hint = "convert the file again, or remove the key",
                 .file = from.path,
                 .key = from.key});
  }
  setting.set(number, kFromFile);
}

}  // namespace

void SamplingOptions::declare(Parser& parser) {
  const std::string model = "default: the file's, else ";
  parser.real("--temp,--temperature", temp_, kTemp,
              "temperature; 0 is greedy (the repeat penalty still applies); " + model + "0.7");
  parser.integer("--top-k", top_k_, {0, std::numeric_limits<std::int32_t>::max()},
                 "only the K likeliest tokens; 0: all; " + model + "20");
  parser.real("--top-p", top_p_, kTopP,
              "only the likeliest tokens that make up P; 1: all; " + model + "0.8");
  parser.real("--min-p", min_p_, kMinP,
              "no token less likely than P times the likeliest; " + model + "0");
  parser.real("--repeat-penalty", repeat_penalty_, kPenalty,
              "weakens tokens that occurred; 1: off; " + model + "1.05");
  parser.text("-s,--seed", seed_text_, "of the random numbers; default: another each time");
  parser.refuse(
      "--typical,--typical-p,--mirostat,--tfs,--xtc-probability,--dynatemp-range,"
      "--presence-penalty,--frequency-penalty,--repeat-last-n,--samplers,--grammar,"
      "--json-schema,--logit-bias",
      "not supported; --temp, --top-k, --top-p, --min-p and --repeat-penalty are");
}

void SamplingOptions::parse_seed() {
  const std::string& text = seed_text_.value;
  if (text.empty() || text == "-1") {  // llama.cpp's way to ask for another each time
    seed_ = std::random_device{}();
    seed_text_.source = kBuiltIn;
  } else {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed_);
    if (error != std::errc{} || end != text.data() + text.size()) {
      usage_error("--seed is '" + text + "', expected a whole number below 2^64");
    }
  }
}

void SamplingOptions::resolve(const SamplingDefaults& file, const std::string& path) {
  suggest(temp_, file.temp, {"general.sampling.temp", kTemp, path});
  suggest(top_p_, file.top_p, {"general.sampling.top_p", kTopP, path});
  suggest(min_p_, file.min_p, {"general.sampling.min_p", kMinP, path});
  suggest(repeat_penalty_, file.penalty_repeat,
          {"general.sampling.penalty_repeat", kPenalty, path});
  if (file.top_k && !top_k_.chosen()) top_k_.set(*file.top_k, kFromFile);
}

SampleParams SamplingOptions::params() const {
  return {.temp = static_cast<float>(temp_.value),
          .top_k = static_cast<std::int32_t>(top_k_.value),
          .top_p = static_cast<float>(top_p_.value),
          .min_p = static_cast<float>(min_p_.value),
          .repeat_penalty = static_cast<float>(repeat_penalty_.value),
          .seed_low = static_cast<std::uint32_t>(seed_),
          .seed_high = static_cast<std::uint32_t>(seed_ >> 32)};
}

Json SamplingOptions::description() const {
  return {{"temp", temp_.value},
          {"top_k", top_k_.value},
          {"top_p", top_p_.value},
          {"min_p", min_p_.value},
          {"repeat_penalty", repeat_penalty_.value},
          {"seed", seed_}};
}

std::string SamplingOptions::summary() const {
  if (temp_.value == 0) return "greedy (temp 0)";
  return "temp " + short_number(temp_.value) + " top-k " + std::to_string(top_k_.value) +
         " top-p " + short_number(top_p_.value) + " (" +
         (temp_.source == kFromFile ? "model" : temp_.source) + ")";
}

void SamplingOptions::explain(Console& console) const {
  const auto show = [&](const char* name, const std::string& value, const std::string& source) {
    console.detail(std::string(name) + " = " + value + " (" + source + ")");
  };
  show("temp", short_number(temp_.value), temp_.source);
  show("top-k", std::to_string(top_k_.value), top_k_.source);
  show("top-p", short_number(top_p_.value), top_p_.source);
  show("min-p", short_number(min_p_.value), min_p_.source);
  show("repeat-penalty", short_number(repeat_penalty_.value), repeat_penalty_.source);
  show("seed", std::to_string(seed_), seed_text_.chosen() ? seed_text_.source : "random");
}

}  // namespace qwen::cli
