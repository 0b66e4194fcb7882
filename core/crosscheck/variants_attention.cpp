// Wrong ways to write the key/value cache and to read it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/crosscheck/variants.h"
#include "core/half.h"
#include "core/kv_layout.h"

namespace qwen::crosscheck {
namespace {

// ---- KvWrite

// Where a token's head is stored, and what.
struct Place {
  bool stored = true;
  std::int64_t seq, head, pos;
  float k, v;
};

// Stores every element where and as `wrong` says, which gets what would be right.
template <class Wrong>
bool write(Op& op, const Wrong& wrong) {
  auto* w = std::get_if<KvWrite>(&op);
  if (w == nullptr) return false;
  const KvLayout layout = kv_layout(w->k_cache, w->pages);
  const std::int64_t heads = w->k.shape[1];
  const std::int64_t head_dim = w->k.shape[2];
  for (std::int64_t t = 0; t < w->k.shape[0]; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t d = 0; d < head_dim; ++d) {
        const std::int64_t i = (t * heads + h) * head_dim + d;
        Place p{true,
                w->seq.i32()[t],
                h,
                w->pos.i32()[t],
                w->k.f32()[i] - w->k_center.f32()[h * head_dim + d],
                w->v.f32()[i]};
        wrong(*w, t, d, p);
        if (!p.stored || p.pos < 0 || p.pos / layout.page_tokens >= layout.pages_per_seq) continue;
        if (w->pages.i32()[p.seq * layout.pages_per_seq + p.pos / layout.page_tokens] < 0) continue;
        const std::int64_t at = kv_offset(layout, w->pages.i32(), p.seq, p.head, p.pos, d);
        store_cache_value(w->k_cache, at, p.k);
        store_cache_value(w->v_cache, at, p.v);
      }
    }
  }
  return true;
}

float five_bits_of_exponent_two_of_fraction(float v) {
  return f16_to_f32(static_cast<std::uint16_t>(f32_to_f16(v) & 0xff00u));
}

// ---- Attention

struct Wrong {
  int scale_power = 1;        // 0: no scale, 2: twice
  bool modulo_heads = false;  // kv_head = head % n_kv_heads
  std::int64_t skip_last = 0;
  std::int64_t read_beyond = 0;
  std::int64_t first = 0;  // keys before it are not seen
  bool only_first_key = false;
  bool one_slot = false;  // every key is that of position 0
  bool no_max = false;
  bool next_sequence = false;
  bool same_length = false;  // all tokens see as far as the last of the step
  bool lse_without_max = false;
  double clip = std::numeric_limits<double>::infinity();
  bool half_scores = false;
  bool half_sum = false;
};

void attend_row(const Attention& op, const Wrong& wrong, std::int64_t token, std::int64_t head) {
  const KvLayout layout = kv_layout(op.k_cache, op.pages);
  const std::int64_t heads = op.q.shape[1];
  const std::int64_t head_dim = op.q.shape[2];
  const std::int64_t n_seqs = op.pages.shape[0];
  const std::int64_t kv_head =
      wrong.modulo_heads ? head % layout.n_kv_heads : head / (heads / layout.n_kv_heads);
  std::int64_t seq = op.seq.i32()[token];
  if (wrong.next_sequence) seq = (seq + 1) % n_seqs;
  std::int64_t n = op.pos.i32()[token] + 1;
  if (wrong.same_length) {
    n = *std::max_element(op.pos.i32(), op.pos.i32() + op.pos.size()) + 1;
  }
  n += wrong.read_beyond - wrong.skip_last;
  if (wrong.only_first_key) n = 1;
  n = std::clamp<std::int64_t>(n, 1, layout.pages_per_seq * layout.page_tokens);
  const std::int64_t first = std::min(wrong.first, n - 1);
  // Not-a-number where there is no page.
  const auto element = [&](const Tensor& cache, std::int64_t pos, std::int64_t d) {
    if (wrong.one_slot) pos = 0;
    const std::int32_t* table = op.pages.i32();
    if (table[seq * layout.pages_per_seq + pos / layout.page_tokens] < 0) {
      return std::numeric_limits<double>::quiet_NaN();
    }
    return double{cache_value(cache, kv_offset(layout, table, seq, kv_head, pos, d))};
  };
  const std::int64_t row = token * heads + head;
  const float* q = op.q.f32() + row * head_dim;
  std::vector<double> score(n);
  double max = -std::numeric_limits<double>::infinity();
  for (std::int64_t j = first; j < n; ++j) {
    double dot = 0;
    for (std::int64_t d = 0; d < head_dim; ++d) dot += q[d] * element(op.k_cache, j, d);
    score[j] =
        std::clamp(dot * std::pow(double{op.scale}, wrong.scale_power), -wrong.clip, wrong.clip);
    if (wrong.half_scores) score[j] = round_to_f16(static_cast<float>(score[j]));
    max = std::isnan(score[j]) ? score[j] : std::max(max, score[j]);
  }
  if (wrong.no_max) max = 0;
  double sum = 0;
  std::vector<double> out(head_dim);
  for (std::int64_t j = first; j < n; ++j) {
    // FP32, as a kernel would have it: without the maximum it overflows.
    const double p = std::exp(static_cast<float>(score[j] - max));
    sum = wrong.half_sum ? double{round_to_f16(static_cast<float>(sum + p))}
                         : sum + static_cast<float>(p);
    for (std::int64_t d = 0; d < head_dim; ++d) {
      out[d] += static_cast<float>(p) * element(op.v_cache, j, d);
    }
  }
  for (std::int64_t d = 0; d < head_dim; ++d) {
    op.out.f32()[row * head_dim + d] = static_cast<float>(out[d] / sum);
  }
  op.lse.f32()[row] = static_cast<float>((wrong.lse_without_max ? 0 : max) + std::log(sum));
}

bool attend(Op& op, const Wrong& wrong) {
  auto* a = std::get_if<Attention>(&op);
  if (a == nullptr) return false;
  if (wrong.next_sequence && a->pages.shape[0] < 2) return false;
  for (std::int64_t t = 0; t < a->q.shape[0]; ++t) {
    for (std::int64_t h = 0; h < a->q.shape[1]; ++h) attend_row(*a, wrong, t, h);
  }
  // The bounds follow from the scores as they were scaled.
  a->scale = static_cast<float>(std::pow(double{a->scale}, wrong.scale_power));
  return true;
}

using Kv = KvWrite;

constexpr Variant kAttentionVariants[] = {
    {"nothing is stored", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv&, auto, auto, Place& p) { p.stored = false; });
     }},
    {"only the step's first token is stored", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv&, auto t, auto, Place& p) { p.stored = t == 0; });
     }},
    {"only key/value head 0 is stored", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv&, auto, auto, Place& p) { p.stored = p.head == 0; });
     }},
    {"all key/value heads are stored in the place of head 0", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv&, auto, auto, Place& p) { p.head = 0; });
     }},
    {"the heads are stored in reverse order", false,
     [](Workbench&, Op& op) {
       return write(op,
                    [](const Kv& w, auto, auto, Place& p) { p.head = w.k.shape[1] - 1 - p.head; });
     }},
    {"stored one position too early", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv&, auto, auto, Place& p) { --p.pos; });
     }},
    {"stored one position too late", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv&, auto, auto, Place& p) { ++p.pos; });
     }},
    {"always stored at position 0", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv&, auto, auto, Place& p) { p.pos = 0; });
     }},
    {"stored in the pages of another sequence", false,
     [](Workbench&, Op& op) {
       return write(
           op, [](const Kv& w, auto, auto, Place& p) { p.seq = (p.seq + 1) % w.pages.shape[0]; });
     }},
    {"keys and values are swapped", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv&, auto, auto, Place& p) { std::swap(p.k, p.v); });
     }},
    {"the keys' center is not subtracted", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv& w, auto t, auto d, Place& p) {
         p.k = w.k.f32()[(t * w.k.shape[1] + p.head) * w.k.shape[2] + d];
       });
     }},
    {"the center of key head 0 is taken from all", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv& w, auto t, auto d, Place& p) {
         p.k = w.k.f32()[(t * w.k.shape[1] + p.head) * w.k.shape[2] + d] - w.k_center.f32()[d];
       });
     }},
    {"stored in 8 bits (E5M2)", false,
     [](Workbench&, Op& op) {
       return write(op, [](const Kv&, auto, auto, Place& p) {
         p.k = five_bits_of_exponent_two_of_fraction(p.k);
         p.v = five_bits_of_exponent_two_of_fraction(p.v);
       });
     }},

    {"scores are not scaled", false,
     [](Workbench&, Op& op) { return attend(op, {.scale_power = 0}); }},
    {"scores are scaled twice", false,
     [](Workbench&, Op& op) { return attend(op, {.scale_power = 2}); }},
    {"kv_head = head % n_kv_heads instead of head / group", false,
     [](Workbench&, Op& op) { return attend(op, {.modulo_heads = true}); }},
    {"the token's own key is not seen", false,
     [](Workbench&, Op& op) { return attend(op, {.skip_last = 1}); }},
    {"the key of position 0 is not seen", false,
     [](Workbench&, Op& op) { return attend(op, {.first = 1}); }},
    {"one key too many is read", false,
     [](Workbench&, Op& op) { return attend(op, {.read_beyond = 1}); }},
    {"only the first key is seen", false,
     [](Workbench&, Op& op) { return attend(op, {.only_first_key = true}); }},
    {"one slot is read for all keys", false,
     [](Workbench&, Op& op) { return attend(op, {.one_slot = true}); }},
    {"later tokens of the step are seen", false,
     [](Workbench&, Op& op) { return attend(op, {.same_length = true}); }},
    {"the cache of another sequence is read", false,
     [](Workbench&, Op& op) { return attend(op, {.next_sequence = true}); }},
    {"the row's maximum is not subtracted", false,
     [](Workbench&, Op& op) { return attend(op, {.no_max = true}); }},
    {"the log-sum-exp lacks the maximum", false,
     [](Workbench&, Op& op) { return attend(op, {.lse_without_max = true}); }},
    {"scores are clipped at 50", false,
     [](Workbench&, Op& op) { return attend(op, {.clip = 50}); }},
    {"scores are rounded to F16", true,
     [](Workbench&, Op& op) { return attend(op, {.half_scores = true}); }},
    {"the sum of the softmax is kept in F16", true,
     [](Workbench&, Op& op) { return attend(op, {.half_sum = true}); }},
};

}  // namespace

std::span<const Variant> attention_variants() { return kAttentionVariants; }

}  // namespace qwen::crosscheck
