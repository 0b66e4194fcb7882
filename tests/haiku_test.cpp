// The whole engine by one text: the default model is asked for a haiku with the current minute as a
// word. No fault of the forward pass leaves five, seven and five syllables.
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference/reference.h"
#include "backends/registry.h"
#include "core/crosscheck/faults.h"
#include "core/crosscheck/faulty_backend.h"
#include "core/error.h"
#include "tests/haiku.h"
#include "tests/real_model.h"

namespace qwen::testing {
namespace {

constexpr int kMinutes = 60;
constexpr std::uint32_t kSeed = 42;

int current_minute() { return static_cast<int>(std::time(nullptr) / 60 % kMinutes); }

std::string random_topic() {
  std::random_device device;
  const auto topics = test_topics();
  return topics[device() % topics.size()];
}

class HaikuTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    for (const Device& device : devices()) {
      if (device.kind == GetParam() && !device.usable) {
        GTEST_SKIP() << device.kind << " cannot be used here: " << device.why_not;
      }
    }
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
  const std::string word = in_words(current_minute());
  const std::string topic = random_topic();
  expect_haiku(topic, word, {});
  expect_haiku(topic, word, writer_->suggested_sampling(kSeed));
}

// Whatever the clock says, the test above passes.
TEST_P(HaikuTest, HoldsEveryMinute) {
  if (GetParam() == "ref") GTEST_SKIP() << "its ids are those of cpu";
  const bool all = std::getenv("QWEN_EVERY_HAIKU") != nullptr;
  const auto topics = all ? test_topics() : std::vector<std::string>{random_topic()};
  for (const std::string& topic : topics) {
    for (int minute = 0; minute < kMinutes; ++minute) {
      expect_haiku(topic, in_words(minute), {});
      expect_haiku(topic, in_words(minute), writer_->suggested_sampling(kSeed));
    }
  }
}

// The answers of PyTorch in FP32 (tests/golden/make_default_model_goldens.py).
TEST_P(HaikuTest, AnswersAsPyTorchDoes) {
  int n = 0;
  for (const nlohmann::json& golden : golden_lines("default_model.jsonl")) {
    ++n;
    const std::string prompt = golden.at("prompt");
    EXPECT_EQ(writer_->prompt_ids(prompt).size(), golden.at("n_prompt").get<std::size_t>());
    EXPECT_EQ(writer_->answer_ids(prompt), golden.at("ids").get<std::vector<std::int32_t>>())
        << prompt;
  }
  EXPECT_EQ(n, 200);
}

INSTANTIATE_TEST_SUITE_P(Devices, HaikuTest, ::testing::Values("ref", "cpu", "cuda"),
                         [](const auto& test) { return test.param; });

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

// How many of a few haiku are flawed where a fault is planted. A fault may also end the run.
int n_flawed(const crosscheck::Fault& fault) {
  const WordList words;
  CpuBackend cpu(1, "");
  ReferenceBackend reference;
  crosscheck::FaultyBackend faulty(cpu, reference, fault.plants);
  HaikuWriter writer(faulty, fault.load);
  int n = 0;
  for (const char* word : {"seven", "forty-two", "fifty"}) {
    for (const char* topic : {"rain", "the sea"}) {
      try {
        const std::string haiku = writer.answer(haiku_request(topic, word));
        n += flaw(words, haiku, word).empty() ? 0 : 1;
      } catch (const Error&) {
        ++n;
      }
    }
  }
  return n;
}

TEST(HaikuFaults, NoneWithoutAFault) { EXPECT_EQ(n_flawed({"none"}), 0); }

TEST(HaikuFaults, EachBreaksTheText) {
  for (const crosscheck::Fault& fault : crosscheck::fault_catalogue()) {
    const int n = n_flawed(fault);
    std::printf("%s %d\n", std::string(fault.id).c_str(), n);
  }
}

}  // namespace
}  // namespace qwen::testing
