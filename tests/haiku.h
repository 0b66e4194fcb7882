// The haiku that the default model is asked for, and their judge.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend.h"
#include "core/crosscheck/faulty_file.h"
#include "core/model.h"
#include "core/sampler.h"
#include "core/session.h"
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

// What is wrong with a haiku that must hold `word`: "4 lines", "0 times 'seven'", "line 2: 8
// syllables". Empty if nothing is. By the rules of the judge in tools/default_model/haiku.py.
std::string flaw(const WordList& words, const std::string& haiku, const std::string& word);

// The default model on a backend, which must outlive it.
class HaikuWriter {
 public:
  static constexpr int kMaxNew = 64;  // tokens of an answer: a broken model may never end

  // `fault`: how its file is misread.
  explicit HaikuWriter(Backend& backend, const crosscheck::LoadFault& fault = {});

  std::vector<std::int32_t> prompt_ids(const std::string& message);
  // The new tokens, without the end token; at most kMaxNew.
  std::vector<std::int32_t> answer_ids(std::span<const std::int32_t> prompt,
                                       const SampleParams& sampling = {});
  // The greedy answers to all of them in one session, whose steps are ragged: every other prompt
  // joins when the rest decodes already, and each leaves when it has ended.
  std::vector<std::vector<std::int32_t>> answers_together(
      std::span<const std::vector<std::int32_t>> prompts);
  std::string answer(const std::string& message, const SampleParams& sampling = {});
  // What the file suggests, with a seed.
  SampleParams suggested_sampling(std::uint32_t seed);
  const Model& model() const { return *model_; }
  const ModelFile& file() const { return file_; }

 private:
  SessionOptions session_options(std::int64_t n_seqs) const;

  Backend& backend_;
  cli::Console console_;
  cli::OpenedModel opened_;
  crosscheck::FaultyFile file_;
  std::unique_ptr<Model> model_;
};

}  // namespace qwen::testing
