#include "core/crosscheck/variants.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/half.h"
#include "core/sampler.h"

namespace qwen::crosscheck {
namespace {

// The op as T, changed by `change`, run by the reference.
template <class T, class Change>
bool changed(Workbench& bench, Op& op, const Change& change) {
  auto* typed = std::get_if<T>(&op);
  if (typed == nullptr) return false;
  if constexpr (std::is_same_v<decltype(change(*typed)), bool>) {
    if (!change(*typed)) return false;
  } else {
    change(*typed);
  }
  bench.reference(op);
  return true;
}

// The op as T, not run but computed by `compute`.
template <class T, class Compute>
bool computed(Op& op, const Compute& compute) {
  auto* typed = std::get_if<T>(&op);
  if (typed == nullptr) return false;
  compute(*typed);
  return true;
}

float sigmoid(float z) { return static_cast<float>(1 / (1 + std::exp(-double{z}))); }

// With other parameters for all sequences.
template <class Change>
bool sampled(Workbench& bench, Op& op, const Change& change) {
  return changed<Sample>(bench, op, [&](Sample& s) {
    for (std::int64_t i = 0; i < s.params.shape[0]; ++i) {
      SampleParams p;
      std::memcpy(&p, s.params.row(i), sizeof p);
      change(p);
      std::memcpy(s.params.row(i), &p, sizeof p);
    }
  });
}

bool norm_with_eps(Workbench& bench, Op& op, float eps) {
  return changed<RmsNorm>(bench, op, [&](RmsNorm& n) {
    if (n.eps == eps) return false;
    n.eps = eps;
    return true;
  });
}

bool rope_with_base(Workbench& bench, Op& op, double base) {
  return changed<Rope>(bench, op, [&](Rope& r) {
    const std::int64_t n = r.inv_freq.size();
    const Tensor table = bench.scratch.take(DType::kF32, {n});
    for (std::int64_t i = 0; i < n; ++i) {
      table.f32()[i] =
          static_cast<float>(std::pow(base, -static_cast<double>(i) / static_cast<double>(n)));
    }
    r.inv_freq = table;
  });
}

bool rope_at(Workbench& bench, Op& op, std::int32_t (*wrong)(std::int32_t pos)) {
  return changed<Rope>(bench, op, [&](Rope& r) {
    r.pos = bench.scratch.copy(r.pos);
    for (std::int64_t t = 0; t < r.pos.size(); ++t) r.pos.i32()[t] = wrong(r.pos.i32()[t]);
    return std::all_of(r.pos.i32(), r.pos.i32() + r.pos.size(), [](auto p) { return p >= 0; });
  });
}

// Moves element i of each head to position to(i), runs the op, and moves it back.
bool rope_reordered(Workbench& bench, Op& op, std::int64_t (*to)(std::int64_t i, std::int64_t n)) {
  auto* rope = std::get_if<Rope>(&op);
  if (rope == nullptr) return false;
  const std::int64_t n = rope->x.shape[2];
  const Tensor moved = bench.scratch.copy(rope->x);
  for (std::int64_t i = 0; i < moved.size(); ++i) {
    moved.f32()[i / n * n + to(i % n, n)] = rope->x.f32()[i];
  }
  bench.reference(Rope{moved, rope->pos, rope->inv_freq});
  for (std::int64_t i = 0; i < moved.size(); ++i) {
    rope->x.f32()[i] = moved.f32()[i / n * n + to(i % n, n)];
  }
  return true;
}

bool bias_of(Op& op, float (*wrong)(const float* bias, std::int64_t c, std::int64_t n)) {
  return computed<AddBias>(op, [&](AddBias& a) {
    const std::int64_t n = a.x.cols();
    for (std::int64_t i = 0; i < a.x.size(); ++i) a.x.f32()[i] += wrong(a.bias.f32(), i % n, n);
  });
}

template <class F>
bool glu(Op& op, const F& wrong) {
  return computed<SiluMul>(op, [&](SiluMul& s) {
    for (std::int64_t i = 0; i < s.out.size(); ++i) {
      s.out.f32()[i] = wrong(s.gate.f32()[i], s.up.f32()[i]);
    }
  });
}

constexpr Variant kTokenVariants[] = {
    {"token id + 1 is looked up", false,
     [](Workbench& b, Op& op) {
       return changed<Embed>(b, op, [&](Embed& e) {
         const std::int64_t n = e.table.shape[0];
         for (std::int64_t i = 0; i < e.ids.size(); ++i) {
           e.ids.i32()[i] = static_cast<std::int32_t>((e.ids.i32()[i] + 1) % n);
         }
       });
     }},
    {"the embedding is indexed by column", false,
     [](Workbench&, Op& op) {
       return computed<Embed>(op, [](Embed& e) {
         WeightReader table(e.table);
         const std::int64_t n = e.table.shape[1];
         for (std::int64_t i = 0; i < e.out.size(); ++i) {
           e.out.f32()[i] =
               static_cast<float>(table.flat(i % n * e.table.shape[0] + e.ids.i32()[i / n]));
         }
       });
     }},
    {"the embedding is scaled by the root of dim", false,
     [](Workbench& b, Op& op) {
       if (!changed<Embed>(b, op, [](Embed&) {})) return false;
       const Tensor out = std::get<Embed>(op).out;
       const double root = std::sqrt(static_cast<double>(out.cols()));
       for (std::int64_t i = 0; i < out.size(); ++i) {
         out.f32()[i] = static_cast<float>(out.f32()[i] * root);
       }
       return true;
     }},

    {"eps is 1e-5", false, [](Workbench& b, Op& op) { return norm_with_eps(b, op, 1e-5f); }},
    {"eps is 1e-6", false, [](Workbench& b, Op& op) { return norm_with_eps(b, op, 1e-6f); }},
    {"eps is left out", false, [](Workbench& b, Op& op) { return norm_with_eps(b, op, 1e-30f); }},
    {"the norm's weight is left out", false,
     [](Workbench& b, Op& op) {
       return changed<RmsNorm>(b, op, [&](RmsNorm& n) {
         n.weight = b.scratch.copy(n.weight);
         std::fill(n.weight.f32(), n.weight.f32() + n.weight.size(), 1.0f);
       });
     }},
    {"1 is added to the norm's weight", false,
     [](Workbench& b, Op& op) {
       return changed<RmsNorm>(b, op, [&](RmsNorm& n) {
         n.weight = b.scratch.copy(n.weight);
         for (std::int64_t i = 0; i < n.weight.size(); ++i) n.weight.f32()[i] += 1;
       });
     }},
    {"LayerNorm: the mean is subtracted first", false,
     [](Workbench& b, Op& op) {
       return changed<RmsNorm>(b, op, [](RmsNorm& n) {
         const std::int64_t dim = n.x.cols();
         for (std::int64_t t = 0; t < n.x.rows(); ++t) {
           float* x = n.x.f32() + t * dim;
           double mean = 0;
           for (std::int64_t i = 0; i < dim; ++i) mean += x[i];
           for (std::int64_t i = 0; i < dim; ++i) {
             x[i] = static_cast<float>(x[i] - mean / static_cast<double>(dim));
           }
         }
       });
     }},

    {"the bias is left out", false,
     [](Workbench&, Op& op) {
       return bias_of(op, [](const float*, std::int64_t, std::int64_t) { return 0.0f; });
     }},
    {"the bias is added twice", false,
     [](Workbench&, Op& op) {
       return bias_of(op, [](const float* b, std::int64_t c, std::int64_t) { return 2 * b[c]; });
     }},
    {"the bias is subtracted", false,
     [](Workbench&, Op& op) {
       return bias_of(op, [](const float* b, std::int64_t c, std::int64_t) { return -b[c]; });
     }},
    {"the bias is shifted by 64 elements", false,
     [](Workbench&, Op& op) {
       return bias_of(
           op, [](const float* b, std::int64_t c, std::int64_t n) { return b[(c + 64) % n]; });
     }},
    {"the bias is shifted by 128 elements", false,
     [](Workbench&, Op& op) {
       return bias_of(
           op, [](const float* b, std::int64_t c, std::int64_t n) { return b[(c + 128) % n]; });
     }},
    {"the bias's first element is added to all", false,
     [](Workbench&, Op& op) {
       return bias_of(op, [](const float* b, std::int64_t, std::int64_t) { return b[0]; });
     }},
    {"large biases are dropped", false,
     [](Workbench&, Op& op) {
       return bias_of(op, [](const float* b, std::int64_t c, std::int64_t) {
         return std::abs(b[c]) > 10 ? 0.0f : b[c];
       });
     }},
    {"the result is clamped to 20", false,
     [](Workbench& b, Op& op) {
       if (!changed<AddBias>(b, op, [](AddBias&) {})) return false;
       const Tensor x = std::get<AddBias>(op).x;
       for (std::int64_t i = 0; i < x.size(); ++i) x.f32()[i] = std::clamp(x.f32()[i], -20.f, 20.f);
       return true;
     }},

    {"not rotated, or as if at position 0", false,
     [](Workbench&, Op& op) { return std::holds_alternative<Rope>(op); }},
    {"adjacent pairs (2i, 2i+1) are rotated instead of (i, i + head_dim/2)", false,
     [](Workbench& b, Op& op) {
       return rope_reordered(
           b, op, [](std::int64_t i, std::int64_t n) { return i / 2 + (i % 2 == 0 ? 0 : n / 2); });
     }},
    {"the sine has the other sign", false,
     [](Workbench& b, Op& op) {
       return rope_reordered(b, op, [](std::int64_t i, std::int64_t n) { return (i + n / 2) % n; });
     }},
    {"the base is 1e4", false, [](Workbench& b, Op& op) { return rope_with_base(b, op, 1e4); }},
    {"the base is 1e6", false, [](Workbench& b, Op& op) { return rope_with_base(b, op, 1e6); }},
    {"only the first half of the pairs is rotated", false,
     [](Workbench& b, Op& op) {
       return changed<Rope>(b, op, [&](Rope& r) {
         r.inv_freq = b.scratch.copy(r.inv_freq);
         const std::int64_t n = r.inv_freq.size();
         std::fill(r.inv_freq.f32() + n / 2, r.inv_freq.f32() + n, 0.0f);
       });
     }},
    {"position + 1", false,
     [](Workbench& b, Op& op) { return rope_at(b, op, [](std::int32_t p) { return p + 1; }); }},
    {"position - 1", false,
     [](Workbench& b, Op& op) {
       return rope_at(b, op, [](std::int32_t p) { return std::max(p - 1, 0); });
     }},
    {"angles are rounded to F16", true,
     [](Workbench& b, Op& op) {
       return changed<Rope>(b, op, [&](Rope& r) {
         r.inv_freq = b.scratch.copy(r.inv_freq);
         for (std::int64_t i = 0; i < r.inv_freq.size(); ++i) {
           r.inv_freq.f32()[i] = round_to_f16(r.inv_freq.f32()[i]);
         }
       });
     }},

    {"gate and up are swapped", false,
     [](Workbench& b, Op& op) {
       return changed<SiluMul>(b, op, [](SiluMul& s) { std::swap(s.gate, s.up); });
     }},
    {"SiLU is left out", false,
     [](Workbench&, Op& op) { return glu(op, [](float g, float u) { return g * u; }); }},
    {"a sigmoid instead of SiLU", false,
     [](Workbench&, Op& op) { return glu(op, [](float g, float u) { return sigmoid(g) * u; }); }},
    {"GELU instead of SiLU", false,
     [](Workbench&, Op& op) {
       return glu(op, [](float g, float u) {
         return static_cast<float>(0.5 * g * (1 + std::erf(double{g} / std::sqrt(2.0)))) * u;
       });
     }},
    {"the exponential of SiLU is rounded to F16", true,
     [](Workbench&, Op& op) {
       return glu(op, [](float g, float u) {
         return g / (1 + round_to_f16(static_cast<float>(std::exp(-double{g})))) * u;
       });
     }},

    {"the residual is dropped", false,
     [](Workbench&, Op& op) {
       return computed<Add>(op, [](Add& a) { std::memcpy(a.x.data, a.y.data, a.x.bytes()); });
     }},
    {"nothing is added to the residual", false,
     [](Workbench&, Op& op) { return std::holds_alternative<Add>(op); }},
    {"the block's output is added twice", false,
     [](Workbench& b, Op& op) { return changed<Add>(b, op, [&](Add& a) { b.reference(Op(a)); }); }},

    {"the first row is taken", false,
     [](Workbench& b, Op& op) {
       return changed<TakeRows>(
           b, op, [](TakeRows& t) { std::fill(t.rows.i32(), t.rows.i32() + t.rows.size(), 0); });
     }},

    {"the temperature is taken for 0", false,
     [](Workbench& b, Op& op) { return sampled(b, op, [](SampleParams& p) { p.temp = 0; }); }},
    {"the repeat penalty is left out", false,
     [](Workbench& b, Op& op) {
       return sampled(b, op, [](SampleParams& p) { p.repeat_penalty = 1; });
     }},
    {"the chosen token is not marked as seen", false,
     [](Workbench& b, Op& op) {
       auto* s = std::get_if<Sample>(&op);
       if (s == nullptr) return false;
       const Tensor seen = b.scratch.copy(s->seen);
       b.reference(op);
       std::memcpy(s->seen.data, seen.data, seen.bytes());
       return true;
     }},
    {"top_k is left out", false,
     [](Workbench& b, Op& op) { return sampled(b, op, [](SampleParams& p) { p.top_k = 0; }); }},
    {"top_p is left out", false,
     [](Workbench& b, Op& op) { return sampled(b, op, [](SampleParams& p) { p.top_p = 1; }); }},
    {"the draw is that of the next position", false,
     [](Workbench& b, Op& op) {
       return changed<Sample>(b, op, [&](Sample& s) {
         for (std::int64_t i = 0; i < s.pos.size(); ++i) ++s.pos.i32()[i];
       });
     }},
};

}  // namespace

std::span<const Variant> token_variants() { return kTokenVariants; }

bool run_variant(std::string_view cause, Workbench& bench, Op& op) {
  for (const auto& variants : {token_variants(), attention_variants()}) {
    for (const Variant& v : variants) {
      if (v.cause == cause && v.run(bench, op)) return true;
    }
  }
  auto* gemm = std::get_if<Gemm>(&op);
  if (gemm == nullptr) return false;
  for (const GemmVariant& v : gemm_variants()) {
    if (v.cause != cause) continue;
    WeightReader weight(gemm->weight);
    for (std::int64_t i = 0; i < gemm->out.size(); ++i) {
      WrongSum s;
      if (!v.element(weight, *gemm, i / weight.rows(), i % weight.rows(), s)) return false;
      gemm->out.f32()[i] = static_cast<float>(s.sum);
    }
    return true;
  }
  return false;
}

}  // namespace qwen::crosscheck
