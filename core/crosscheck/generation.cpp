#include "core/crosscheck/generation.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>

#include "core/error.h"

namespace qwen::crosscheck {
namespace {

struct Generated {
  std::vector<std::vector<std::int32_t>> ids = {};  // by step: one for each sequence
  Scratch memory = {};
  Tensor logits = {};       // of the last step when it is run again
  std::string failed = {};  // why there are no more ids, and no logits
};

// The last tokens of the texts, which wait for their step.
std::vector<TokenInput> begin(Session& session,
                              const std::vector<std::vector<std::int32_t>>& texts) {
  std::vector<TokenInput> last;
  for (const std::vector<std::int32_t>& text : texts) {
    const auto seq = static_cast<std::int32_t>(last.size());
    const auto pos = static_cast<std::int32_t>(text.size()) - 1;
    session.reset(seq);
    session.set_seen(seq, text);
    if (pos > 0) session.prefill(seq, std::span(text).first(static_cast<std::size_t>(pos)));
    last.push_back({text.back(), pos, seq, true});
  }
  return last;
}

void choose_one_by_one(Session& session, std::vector<TokenInput> step, std::int64_t n,
                       std::vector<std::vector<std::int32_t>>& ids) {
  while (true) {
    session.step(step);
    ids.push_back(session.sample());
    if (static_cast<std::int64_t>(ids.size()) == n) return;
    for (std::size_t s = 0; s < step.size(); ++s) {
      step[s].id = ids.back()[s];
      ++step[s].pos;
    }
  }
}

void choose_ahead(Session& session, const std::vector<TokenInput>& step, std::int64_t n,
                  std::vector<std::vector<std::int32_t>>& ids) {
  session.step(step);
  session.queue_sample();
  for (std::int64_t n_left = n - 1; static_cast<std::int64_t>(ids.size()) < n;) {
    for (; n_left > 0 && session.n_queued() <= session.backend().queue_depth(); --n_left) {
      session.queue_decode();
    }
    ids.push_back(session.take());
  }
}

template <class Choose>
Generated generate(Session& session, const std::vector<std::vector<std::int32_t>>& texts,
                   std::int64_t n_decode, const Choose& choose) {
  Generated g;
  std::vector<TokenInput> step = begin(session, texts);
  try {
    choose(session, step, n_decode, g.ids);
  } catch (const Error& error) {
    if (error.info().code != "not_finite") throw;
    g.failed = error.what();
    return g;
  }
  for (std::size_t s = 0; s < step.size(); ++s) {
    step[s].id = g.ids[g.ids.size() - 2][s];
    step[s].pos += static_cast<std::int32_t>(n_decode) - 1;
  }
  const Tensor logits = session.step(step);
  g.logits = g.memory.take(logits.dtype, logits.dims());
  session.backend().read(g.logits.data, logits);
  return g;
}

// What a run that is queued ahead has otherwise, of `texts`.
std::optional<Divergence> difference(const Generated& expected, const Generated& got,
                                     const std::vector<std::vector<std::int32_t>>& texts) {
  const auto differs = [&](std::size_t step, std::size_t seq, std::string_view tap) {
    Divergence d;
    d.tap = {tap};
    d.output = "out";
    d.seq = static_cast<std::int32_t>(seq);
    d.token = static_cast<std::int64_t>(texts[seq].size() + step) - 1;
    d.cause = {"generation, which queues steps ahead, differs from the same steps one by one",
               "the same texts, the same steps: the tokens and the bits must be the same"};
    return d;
  };
  for (std::size_t i = 0; i < std::max(expected.ids.size(), got.ids.size()); ++i) {
    for (std::size_t s = 0; s < texts.size(); ++s) {
      // Not a number where a choice failed: of which sequence, nobody says.
      const auto id = [&](const Generated& g) {
        return i < g.ids.size() ? g.ids[i][s] : std::numeric_limits<double>::quiet_NaN();
      };
      const Element e{static_cast<std::int64_t>(s), id(got), id(expected), 0};
      if (e.ratio() == 0) continue;
      Divergence d = differs(i, s, "token");
      d.element = e;
      d.n_failed = 1;
      d.n_elements = static_cast<std::int64_t>(texts.size());
      const std::string& why = got.failed.empty() ? expected.failed : got.failed;
      if (!why.empty()) d.cause.evidence += "; " + why;
      return d;
    }
  }
  if (!got.failed.empty()) return std::nullopt;  // the same choice failed in both
  const Judgement j = compare_bits(expected.logits, got.logits);
  if (j.verdict != Verdict::kFail) return std::nullopt;
  const std::int64_t n_vocab = expected.logits.cols();
  Divergence d =
      differs(expected.ids.size() - 1, static_cast<std::size_t>(j.first.index / n_vocab), "logits");
  d.coords = {j.first.index % n_vocab};
  d.element = j.first;
  d.n_failed = j.n_failed;
  d.n_elements = j.n_elements;
  return d;
}

}  // namespace

GenerationCheck check_generation(Session& session,
                                 const std::vector<std::vector<std::int32_t>>& texts,
                                 std::int64_t n_decode) {
  if (n_decode < 2) return {};  // nothing to queue
  const Generated expected = generate(session, texts, n_decode, choose_one_by_one);
  const Generated got = generate(session, texts, n_decode, choose_ahead);
  const auto n_steps = static_cast<std::int64_t>(std::min(expected.ids.size(), got.ids.size()));
  return {.n_queued = std::max<std::int64_t>(0, n_steps - 1) * std::ssize(texts),
          .divergence = difference(expected, got, texts)};
}

}  // namespace qwen::crosscheck
