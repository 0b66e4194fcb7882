// The whole engine by one text: the default model is asked for a haiku with the current minute as a
// word. The classic faults of a forward pass (HaikuFaults) do not leave five, seven and five
// syllables.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string_view>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "backends/registry.h"
#include "core/crosscheck/cross_check.h"
#include "core/crosscheck/faults.h"
#include "core/crosscheck/faulty_backend.h"
#include "core/error.h"
#include "tests/haiku.h"
#include "tests/real_model.h"
#include "tests/usable_device.h"

namespace qwen::testing {
namespace {

constexpr int kMinutes = 60;
constexpr std::uint32_t kSeed = 42;

int current_minute() { return static_cast<int>(std::time(nullptr) / 60 % kMinutes); }

// All topics and goldens on all devices: minutes instead of seconds.
bool takes_all() { return std::getenv("QWEN_EVERY_HAIKU") != nullptr; }

std::string random_topic() {
  std::random_device device;
  const auto topics = test_topics();
  return topics[device() % topics.size()];
}

// Of the sampled haiku: chance decides about the words, so each pair is one that is tried.
std::string topic_of(int minute) {
  const auto topics = test_topics();
  return topics[static_cast<std::size_t>(minute) % topics.size()];
}

// A line of default_model.jsonl.
struct Golden {
  std::string prompt;
  std::vector<std::int32_t> prompt_ids;
  std::vector<std::int32_t> ids;  // of the answer

  static std::vector<Golden> all() {
    std::vector<Golden> goldens;
    for (const nlohmann::json& line : golden_lines("default_model.jsonl")) {
      goldens.push_back({line.at("prompt"), line.at("prompt_ids"), line.at("ids")});
    }
    return goldens;
  }
};

class HaikuTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string why = why_skipped(GetParam());
    if (!why.empty()) GTEST_SKIP() << why;
    backend_ = make_backend(GetParam(), {});
    writer_ = std::make_unique<HaikuWriter>(*backend_);
  }

  void expect_haiku(const std::string& topic, const std::string& word,
                    const SampleParams& sampling) {
    const std::string request = haiku_request(topic, word);
    const std::string haiku = writer_->answer(request, sampling);
    EXPECT_EQ(flaw(words_, haiku, word), "") << request << "\n" << haiku;
  }

  const WordList words_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<HaikuWriter> writer_;
};

TEST_P(HaikuTest, HoldsTheMinuteInWords) {
  const int minute = current_minute();
  const std::string word = in_words(minute);
  expect_haiku(random_topic(), word, {});
  expect_haiku(topic_of(minute), word, writer_->suggested_sampling(kSeed));
}

// So that the test above passes whatever the clock says; for every topic if all are asked for.
TEST_P(HaikuTest, HoldsEveryMinute) {
  if (GetParam() == "ref") GTEST_SKIP() << "too slow for all of them";
  const auto topics = takes_all() ? test_topics() : std::vector<std::string>{random_topic()};
  for (int minute = 0; minute < kMinutes; ++minute) {
    const std::string word = in_words(minute);
    expect_haiku(topic_of(minute), word, writer_->suggested_sampling(kSeed));
    for (const std::string& topic : topics) expect_haiku(topic, word, {});
  }
}

// The ids are those of PyTorch in FP32 (tests/golden/make_default_model_goldens.py).
TEST_P(HaikuTest, AnswersAsPyTorchDoes) {
  const auto goldens = Golden::all();
  ASSERT_EQ(goldens.size(), 200u);
  // The reference takes a second for each.
  const std::size_t step = GetParam() == "ref" && !takes_all() ? 20 : 1;
  for (std::size_t i = 0; i < goldens.size(); i += step) {
    EXPECT_EQ(writer_->answer_ids(goldens[i].prompt_ids), goldens[i].ids) << goldens[i].prompt;
  }
}

TEST_P(HaikuTest, AnswersInABatchAsAlone) {
  const auto goldens = Golden::all();
  const std::size_t n = GetParam() == "ref" ? 3 : 8;
  std::vector<std::vector<std::int32_t>> prompts, alone;
  for (std::size_t i = 0; i < n; ++i) {
    prompts.push_back(goldens[i].prompt_ids);
    alone.push_back(writer_->answer_ids(goldens[i].prompt_ids));
  }
  EXPECT_EQ(writer_->answers_together(prompts), alone);
}

// Shadow mode, against the reference; a GPU with the operands of the CPU.
TEST_P(HaikuTest, CrossCheckAgrees) {
  if (GetParam() == "ref") GTEST_SKIP() << "it is what the others are checked against";
  const auto path = make_backend(GetParam(), {.exact = true});
  ReferenceBackend reference;
  HaikuWriter on_path(*path), exact(reference);
  const auto run = crosscheck::cross_check(
      {*path, reference, reference, reference}, {on_path.model(), exact.model(), exact.file()},
      {.texts = {exact.prompt_ids(haiku_request("rain", "seven")), exact.prompt_ids("Hi")},
       .n_decode = 8,
       .chunk = 32});
  EXPECT_EQ(run.agreement, crosscheck::Agreement::kAgree);
  EXPECT_TRUE(run.attestation.findings.empty());
  EXPECT_TRUE(run.shadow.divergences.empty());
  EXPECT_GT(run.shadow.n_checks, 1000);
}

INSTANTIATE_TEST_SUITE_P(Devices, HaikuTest, ::testing::Values("ref", "cpu", "cuda"),
                         [](const auto& test) { return test.param; });

// So that a fault of the tokenizer or the template is told from one of the model.
TEST(HaikuTokenizer, EncodesAsTheGoldensDo) {
  ReferenceBackend reference;
  HaikuWriter writer(reference);
  for (const Golden& golden : Golden::all()) {
    EXPECT_EQ(writer.prompt_ids(golden.prompt), golden.prompt_ids) << golden.prompt;
  }
}

// The judge itself: what a text must not get past it with.
TEST(HaikuJudge, FindsEachFlaw) {
  const WordList words;
  const std::string good = "forty-two white gulls\nthe tide murmurs by the shore\nthen it is over";
  EXPECT_EQ(flaw(words, good, "forty-two"), "");
  EXPECT_EQ(flaw(words, good, "two"), "0 times 'two'");
  EXPECT_EQ(flaw(words, good, "forty"), "0 times 'forty'");
  EXPECT_EQ(flaw(words, good + "\n", "forty-two"), "4 lines");
  EXPECT_EQ(
      flaw(words, "forty-two gulls\nthe tide murmurs by the shore\nthen it is over", "forty-two"),
      "line 1: 4 syllables");
  EXPECT_EQ(flaw(words, "forty-two white gulls\nthe tide murmurs by the shore\nxqzt is over",
                 "forty-two"),
            "line 3: an unknown word");
  EXPECT_EQ(flaw(words, "forty-two white gulls\nforty-two murmurs the shore\nthen it is over",
                 "forty-two"),
            "2 times 'forty-two'");
  for (int minute = 0; minute < kMinutes; ++minute) {
    EXPECT_TRUE(words.syllables(in_words(minute)).has_value()) << in_words(minute);
  }
}

// The judge that the model's figures are by (tests/golden/make_haiku_judge_goldens.py).
TEST(HaikuJudge, AgreesWithTheOneInPython) {
  const auto goldens = golden_lines("haiku_judge.jsonl");
  EXPECT_GT(goldens.size(), 200u);
  const WordList words;
  for (const nlohmann::json& golden : goldens) {
    const std::string found = flaw(words, golden.at("text"), golden.at("word"));
    EXPECT_EQ(found.empty(), golden.at("sound").get<bool>()) << found << "\n" << golden;
  }
}

// Of how many minutes the haiku is flawed where a fault is planted; `enough` ends the count. A
// fault may also end the run.
int flawed_minutes(const crosscheck::Fault& fault, int enough) {
  const WordList words;
  CpuBackend cpu(1, "");
  ReferenceBackend reference;
  crosscheck::FaultyBackend faulty(cpu, reference, fault.plants);
  HaikuWriter writer(faulty, fault.load);
  int n = 0;
  for (int minute = 0; minute < kMinutes && n < enough; ++minute) {
    const std::string word = in_words(minute);
    try {
      const std::string haiku = writer.answer(haiku_request("rain", word));
      if (!flaw(words, haiku, word).empty()) ++n;
    } catch (const Error&) {
      ++n;
    }
  }
  return n;
}

TEST(HaikuFaults, NoneWithoutAFault) { EXPECT_EQ(flawed_minutes({"none"}, kMinutes), 0); }

TEST(HaikuFaults, EachBreaksTheText) {
  // What is not written (M18) must not be found in memory that an earlier run left: seen once.
  mallopt(M_PERTURB, 0xff);  // glibc: new memory is zeros
  const std::set<std::string_view> classic = {
      "M16a",  // a bias left out
      "M16b",  // all biases zeroed at load
      "M13a",  // outliers of a bias dropped
      "M3a",   // rotary base
      "M3e",   // rotary pairs
      "M3f",   // position stuck
      "M3g",   // sign of the sine
      "M7b",   // row stride of a weight
      "M7c",   // a weight transposed
      "M42a",  // rows shifted
      "M2c",   // scale missing
      "M2d",   // scale applied twice
      "M5a",   // wrong key/value head
      "M15",   // cache position stuck
      "M18",   // nothing cached
      "M1d",   // one slot read for all
      "M9c",   // norm weight left out
      "M20",   // a weight read from the wrong offset
      "M21",   // embedding by column
      "M25",   // ffn_down never wired
      "M37a",  // gate and up swapped
      "M37b",  // residual dropped
      "P",     // the four of the project's predecessor
  };
  std::size_t n = 0;
  for (const crosscheck::Fault& fault : crosscheck::fault_catalogue()) {
    if (!classic.contains(fault.id)) continue;
    ++n;
    const int flawed = flawed_minutes(fault, takes_all() ? kMinutes : 1);
    EXPECT_GT(flawed, 0) << fault.id;
    if (takes_all()) std::cout << fault.id << ": " << flawed << " of " << kMinutes << " minutes\n";
  }
  EXPECT_EQ(n, classic.size());
}

}  // namespace
}  // namespace qwen::testing
