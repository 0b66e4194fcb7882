// The haiku that the default model is asked for, and their judge.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend.h"
#include "core/crosscheck/faulty_file.h"
#include "core/model.h"
#include "core/sampler.h"
#include "tools/qwen/console.h"
#include "tools/qwen/opened_model.h"

namespace qwen::testing {

// Syllables by word, as tools/default_model/words.txt lists them.
class WordList {
 public:
  WordList();
  // Of all words of a line; empty if one is not listed.
  std::optional<int> syllables(std::string_view line) const;

 private:
  std::map<std::string, int, std::less<>> counts_;
};

// The topics that tools/default_model/topics.txt marks for the tests.
std::vector<std::string> test_topics();

// 0 to 59 as words: "forty-two".
std::string in_words(int minute);

std::string haiku_request(const std::string& topic, const std::string& word);

// What is wrong with a haiku that must hold `word`: "4 lines", "no 'seven'", "line 2: 8 syllables".
// Empty if nothing is.
std::string flaw(const WordList& words, const std::string& haiku, const std::string& word);

// The default model on a backend, which must outlive it.
class HaikuWriter {
 public:
  // `fault`: how its file is misread.
  explicit HaikuWriter(Backend& backend, const crosscheck::LoadFault& fault = {});

  std::vector<std::int32_t> prompt_ids(const std::string& message);
  // The new tokens, without the end token. At most `limit`: a broken model may never end.
  std::vector<std::int32_t> answer_ids(const std::string& message,
                                       const SampleParams& sampling = {}, int limit = 64);
  std::string answer(const std::string& message, const SampleParams& sampling = {});
  // What the file suggests, with a seed.
  SampleParams suggested_sampling(std::uint32_t seed);

 private:
  Backend& backend_;
  cli::Console console_;
  cli::OpenedModel opened_;
  crosscheck::FaultyFile file_;
  std::unique_ptr<Model> model_;
};

}  // namespace qwen::testing
