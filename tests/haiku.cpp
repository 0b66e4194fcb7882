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

// All that a line may be made of: anything else is noise.
bool is_plain(char c) {
  return is_letter(c) || std::string_view(" ,.:;!?'-").find(c) != std::string_view::npos;
}

// The parts of a hyphenated word count as words, "it's" as one.
std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  const std::string text = lower(line) + " ";
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_letter(text[i]) || (text[i] == '\'' && !word.empty() && is_letter(text[i + 1]))) {
      word += text[i];
    } else if (!word.empty()) {
      words.push_back(word);
      word.clear();
    }
  }
  return words;
}

// How often `word` stands in the text, not as a part of another word.
int times(const std::string& word, const std::string& haiku) {
  const std::string text = " " + lower(haiku) + " ";
  const auto joins = [](char c) { return is_letter(c) || c == '-'; };
  int n = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    if (!joins(text[at - 1]) && !joins(text[at + word.size()])) ++n;
  }
  return n;
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
  for (const std::string& word : words_of(line)) {
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
  const int n = times(word, haiku);
  if (n != 1) return std::to_string(n) + " times '" + word + "'";
  constexpr std::array<int, 3> kSyllables = {5, 7, 5};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string where = "line " + std::to_string(i + 1) + ": ";
    if (!std::all_of(lines[i].begin(), lines[i].end(), is_plain)) return where + "noise";
    const auto counted = words.syllables(lines[i]);
    if (!counted) return where + "an unknown word";
    if (*counted != kSyllables.at(i)) return where + std::to_string(*counted) + " syllables";
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

SessionOptions HaikuWriter::session_options(std::int64_t n_seqs) const {
  return {.ctx = kContext,
          .n_seqs = n_seqs,
          .max_step_rows = n_seqs,
          .kv_dtype = backend_.name() == "cuda" ? DType::kF16 : DType::kF32};
}

std::vector<std::int32_t> HaikuWriter::answer_ids(std::span<const std::int32_t> prompt,
                                                  const SampleParams& sampling) {
  Session session(*model_, backend_, session_options(1));
  const GenerateOptions options{
      .sampling = sampling, .max_tokens = kMaxNew, .stop_ids = opened_.stop_ids()};
  Generation made =
      generate(session, 0, prompt, 0, options, [](std::int32_t) { return Verdict::kContinue; });
  if (made.stop == StopReason::kEos) made.ids.pop_back();
  return made.ids;
}

std::vector<std::vector<std::int32_t>> HaikuWriter::answers_together(
    std::span<const std::vector<std::int32_t>> prompts) {
  const auto n = static_cast<std::int32_t>(prompts.size());
  const std::vector<std::int32_t> stop_ids = opened_.stop_ids();
  Session session(*model_, backend_, session_options(n));
  std::vector<std::vector<std::int32_t>> next(prompts.begin(), prompts.end());  // to be fed
  std::vector<std::int32_t> pos(n, 0);
  std::vector<std::vector<std::int32_t>> answers(n);
  for (int step = 0;; ++step) {
    std::vector<TokenInput> tokens;
    std::vector<std::int32_t> rows;  // their sequences
    for (std::int32_t s = 0; s < n; ++s) {
      if (step < s % 2 || next[s].empty()) continue;
      for (const std::int32_t id : next[s]) tokens.push_back({id, pos[s]++, s, false});
      tokens.back().wants_logits = true;
      rows.push_back(s);
    }
    if (tokens.empty()) return answers;
    session.step(tokens);
    const std::vector<std::int32_t> chosen = session.sample();
    for (std::size_t row = 0; row < rows.size(); ++row) {
      std::vector<std::int32_t>& answer = answers[rows[row]];
      next[rows[row]].clear();
      if (std::binary_search(stop_ids.begin(), stop_ids.end(), chosen[row])) continue;
      answer.push_back(chosen[row]);
      if (answer.size() < kMaxNew) next[rows[row]] = {chosen[row]};
    }
  }
}

std::string HaikuWriter::answer(const std::string& message, const SampleParams& sampling) {
  return opened_.tokenizer().decode(answer_ids(prompt_ids(message), sampling));
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
