#include "tests/haiku.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "core/generate.h"
#include "tools/default_model/default_model.h"
#include "tools/qwen/chat_prompt.h"

namespace qwen::testing {
namespace {

constexpr int kContext = 160;  // requests have about 60 tokens, haiku 30

// tools/default_model of the build; the environment variable names it where the test does not run
// on the machine that built it.
std::ifstream open_list(const std::string& name) {
  const char* given = std::getenv("QWEN_DEFAULT_MODEL_DIR");
  const std::string folder = given == nullptr ? QWEN_DEFAULT_MODEL_DIR : given;
  std::ifstream in(folder + "/" + name);
  if (!in) throw std::runtime_error("cannot read " + name);
  return in;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

// Words, and hyphenated ones whole.
std::vector<std::string> words_of(std::string_view text, bool split_hyphens) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : lower(text) + " ") {
    if (is_letter(c) || (c == '-' && !split_hyphens && !word.empty())) {
      word += c;
    } else if (!word.empty()) {
      words.push_back(word);
      word.clear();
    }
  }
  return words;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines(1);
  for (const char c : text) {
    if (c == '\n') {
      lines.emplace_back();
    } else {
      lines.back() += c;
    }
  }
  return lines;
}

}  // namespace

WordList::WordList() {
  std::ifstream in = open_list("words.txt");
  std::string word;
  for (int n = 0; in >> word >> n;) counts_[word] = n;
}

std::optional<int> WordList::syllables(std::string_view line) const {
  int sum = 0;
  for (const std::string& word : words_of(line, true)) {
    const auto known = counts_.find(word);
    if (known == counts_.end()) return std::nullopt;
    sum += known->second;
  }
  return sum;
}

std::vector<std::string> test_topics() {
  std::ifstream in = open_list("topics.txt");
  std::vector<std::string> topics;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream list(line.substr(line.find(':') + 1));
    for (std::string topic; std::getline(list, topic, ',');) {
      if (!topic.ends_with('!')) continue;
      const std::size_t from = topic.find_first_not_of(" =");
      topics.push_back(topic.substr(from, topic.size() - 1 - from));
    }
  }
  return topics;
}

std::string in_words(int minute) {
  static constexpr std::array<const char*, 20> kUnits = {
      "zero",     "one",     "two",     "three",     "four",     "five",    "six",
      "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",  "thirteen",
      "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
  static constexpr std::array<const char*, 6> kTens = {"",       "",      "twenty",
                                                       "thirty", "forty", "fifty"};
  if (minute < 20) return kUnits.at(minute);
  const std::string tens = kTens.at(minute / 10);
  return minute % 10 == 0 ? tens : tens + "-" + kUnits.at(minute % 10);
}

std::string haiku_request(const std::string& topic, const std::string& word) {
  return "Write a haiku about " + topic + ". Use the word \"" + word + "\".";
}

std::string flaw(const WordList& words, const std::string& haiku, const std::string& word) {
  const auto lines = lines_of(haiku);
  if (lines.size() != 3) return std::to_string(lines.size()) + " lines";
  const auto all = words_of(haiku, false);
  const auto n = std::count(all.begin(), all.end(), word);
  if (n != 1) return std::to_string(n) + " times '" + word + "'";
  constexpr std::array<int, 3> kSyllables = {5, 7, 5};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto counted = words.syllables(lines[i]);
    if (!counted) return "line " + std::to_string(i + 1) + ": an unknown word";
    if (*counted != kSyllables.at(i)) {
      return "line " + std::to_string(i + 1) + ": " + std::to_string(*counted) + " syllables";
    }
  }
  return "";
}

HaikuWriter::HaikuWriter(Backend& backend, const crosscheck::LoadFault& fault)
    : backend_(backend),
      opened_(std::string(kDefaultModel), console_),
      file_(opened_.file(), fault),
      model_(load_model(file_, backend)) {}

std::vector<std::int32_t> HaikuWriter::prompt_ids(const std::string& message) {
  const cli::Json messages = {{{"role", "user"}, {"content", message}}};
  return cli::encode_segments(opened_.tokenizer(),
                              cli::render_chat(opened_, messages, nullptr, true).segments);
}

std::vector<std::int32_t> HaikuWriter::answer_ids(const std::string& message,
                                                  const SampleParams& sampling, int limit) {
  Session session(
      *model_, backend_,
      {.ctx = kContext, .kv_dtype = backend_.name() == "cuda" ? DType::kF16 : DType::kF32});
  const GenerateOptions options{
      .sampling = sampling, .max_tokens = limit, .stop_ids = opened_.stop_ids()};
  Generation made = generate(session, 0, prompt_ids(message), 0, options,
                             [](std::int32_t) { return Verdict::kContinue; });
  if (made.stop == StopReason::kEos) made.ids.pop_back();
  return made.ids;
}

std::string HaikuWriter::answer(const std::string& message, const SampleParams& sampling) {
  return opened_.tokenizer().decode(answer_ids(message, sampling));
}

SampleParams HaikuWriter::suggested_sampling(std::uint32_t seed) {
  const SamplingDefaults suggested = read_sampling_defaults(opened_.gguf());
  return {.temp = suggested.temp.value(),
          .top_k = suggested.top_k.value(),
          .top_p = suggested.top_p.value(),
          .repeat_penalty = suggested.penalty_repeat.value(),
          .seed_low = seed};
}

}  // namespace qwen::testing
