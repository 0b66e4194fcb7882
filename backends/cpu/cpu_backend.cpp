#include "backends/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>

#include "core/error.h"
#include "core/kv_layout.h"
#include "core/sampler.h"

namespace qwen {
namespace {

// Waking the other threads costs some microseconds, as long as one core needs for about this many
// elements of a simple row operation.
constexpr std::int64_t kSerialElements = 32768;

// Rows per chunk, so that a chunk has at least kSerialElements elements.
std::int64_t row_grain(std::int64_t cols) { return kSerialElements / cols + 1; }

const cpu::Kernels* choose(std::string_view isa) {
  const auto usable = cpu::usable_kernels();
  if (isa.empty()) return usable.front();
  std::string names;
  for (const cpu::Kernels* k : usable) {
    if (k->isa == isa) return k;
    names += (names.empty() ? "" : ", ") + std::string(k->isa);
  }
  throw Error({.exit = Exit::kModel,
               .code = "isa_not_usable",
               .message = "--isa " + std::string(isa) + ": this processor has " + names});
}

}  // namespace

CpuBackend::CpuBackend(int threads, std::string_view isa, Activations activations)
    : kernels_(choose(isa)), activations_(activations), pool_(threads), scratch_(threads) {}

std::string CpuBackend::description() const {
  const bool int8 = activations_ == Activations::kInt8 && kernels_->int8 != nullptr;
  return std::string(kernels_->isa) + (int8 ? ", 8-bit activations, " : ", ") +
         std::to_string(threads()) + (threads() == 1 ? " thread" : " threads");
}

Contract CpuBackend::contract(const Op& op) const {
  // Vector sums: one chain per lane (gemv: two), then the lanes and chains are added up.
  std::int64_t lane_depth = 1;
  for (std::int64_t n = kernels_->lanes; n > 1; n /= 2) ++lane_depth;
  if (const auto* norm = std::get_if<RmsNorm>(&op)) {
    return {.sum_depth = norm->x.cols() / kernels_->lanes + kernels_->lanes + lane_depth};
  }
  if (const auto* gemm = std::get_if<Gemm>(&op)) {
    if (const cpu::Int8Format* format = int8_format(gemm->weight)) {
      return int8_contract(*gemm, *format);
    }
    const std::int64_t n = gemm->x.cols();
    const std::int64_t tail = 2 * kernels_->lanes;  // elements after the last whole pair of vectors
    return {.sum_depth =
                uses_panels(*gemm) ? n : n / (2 * kernels_->lanes) + tail + lane_depth + 1};
  }
  if (const auto* attention = std::get_if<Attention>(&op)) {
    // One addition per key, and one more roundings per tile when the running maximum grows.
    const auto* pos = attention->pos.i32();
    const std::int64_t kv_len = *std::max_element(pos, pos + attention->pos.size()) + 1;
    const std::int64_t n_tiles = kv_len / attention->k_cache.shape[2] + 1;
    return {.sum_depth = attention->q.shape[2], .value_sum_depth = kv_len + n_tiles};
  }
  return {};
}

std::vector<std::string_view> CpuBackend::usable_isas() {
  std::vector<std::string_view> names;
  for (const cpu::Kernels* k : cpu::usable_kernels()) names.push_back(k->isa);
  return names;
}

void CpuBackend::grow(Scratch& s, std::size_t floats) {
  if (s.floats >= floats) return;
  s.memory = allocate(floats * sizeof(float));
  s.floats = floats;
}

void CpuBackend::reserve_scratch(std::size_t floats) {
  for (Scratch& s : scratch_) grow(s, floats);
}

void CpuBackend::parallel_for(std::int64_t n, std::int64_t grain,
                              const std::function<void(std::int64_t, std::int64_t)>& f) {
  std::exception_ptr thrown;
  std::once_flag first;
  pool_.chunks(n, grain, [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
    try {
      f(begin, end);
    } catch (...) {
      std::call_once(first, [&] { thrown = std::current_exception(); });
    }
  });
  if (thrown) std::rethrow_exception(thrown);
}

float* CpuBackend::shared_scratch(std::size_t floats) {
  grow(shared_, floats);
  return reinterpret_cast<float*>(shared_.memory.get());
}

void CpuBackend::run(const Embed& op) {
  const auto decode = kernels_->decode[static_cast<std::size_t>(op.table.dtype)];
  const std::int64_t dim = op.out.cols();
  const bool panels = in_panels(op.table);
  if (panels) reserve_scratch(op.table.row_bytes() / sizeof(float) + 1);
  pool_.chunks(op.out.rows(), row_grain(dim),
               [&](std::int64_t begin, std::int64_t end, int thread) {
                 for (std::int64_t t = begin; t < end; ++t) {
                   const std::int64_t id = op.ids.i32()[t];
                   const std::byte* row = op.table.row(id);
                   if (panels) {
                     auto* const copy = reinterpret_cast<std::byte*>(scratch(thread));
                     read_panel_row(op.table, id, copy);
                     row = copy;
                   }
                   decode(row, dim, op.out.f32() + t * dim);
                 }
               });
}

void CpuBackend::run(const RmsNorm& op) {
  const std::int64_t dim = op.x.cols();
  pool_.chunks(op.x.rows(), row_grain(dim), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      kernels_->rms_norm(op.x.f32() + t * dim, op.weight.f32(), op.eps, dim,
                         op.out.f32() + t * dim);
    }
  });
}

void CpuBackend::run(const AddBias& op) {
  const std::int64_t n = op.x.cols();
  pool_.chunks(op.x.rows(), row_grain(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) kernels_->add(op.x.f32() + t * n, op.bias.f32(), n);
  });
}

void CpuBackend::run(const Rope& op) {
  const std::int64_t heads = op.x.shape[1];
  const std::int64_t head_dim = op.x.shape[2];
  const std::int64_t half = head_dim / 2;
  reserve_scratch(static_cast<std::size_t>(2 * half));
  const auto rotate = [&](std::int64_t begin, std::int64_t end, int thread) {
    float* cosine = scratch(thread);
    float* sine = cosine + half;
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = double{op.inv_freq.f32()[i]} * op.pos.i32()[t];
        cosine[i] = static_cast<float>(std::cos(angle));
        sine[i] = static_cast<float>(std::sin(angle));
      }
      for (std::int64_t h = 0; h < heads; ++h) {
        kernels_->rope(op.x.f32() + (t * heads + h) * head_dim, cosine, sine, half);
      }
    }
  };
  // A sine and a cosine cost about as much as 16 elements of a simple operation.
  pool_.chunks(op.x.shape[0], row_grain(16 * head_dim), rotate);
}

void CpuBackend::run(const KvWrite& op) {
  const KvLayout layout = kv_layout(op.k_cache, op.pages);
  const std::int64_t heads = op.k.shape[1];
  const std::int64_t head_dim = op.k.shape[2];
  const auto store = [&](const Tensor& cache, std::int64_t to, const float* from) {
    if (cache.dtype == DType::kF32) {
      std::copy(from, from + head_dim, cache.f32() + to);
    } else {
      kernels_->f32_to_f16(from, head_dim, cache.as<std::uint16_t>() + to);
    }
  };
  reserve_scratch(static_cast<std::size_t>(head_dim));
  float* centered = scratch(0);
  for (std::int64_t t = 0; t < op.k.shape[0]; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t to =
          kv_offset(layout, op.pages.i32(), op.seq.i32()[t], h, op.pos.i32()[t], 0);
      const std::int64_t from = (t * heads + h) * head_dim;
      std::transform(op.k.f32() + from, op.k.f32() + from + head_dim,
                     op.k_center.f32() + h * head_dim, centered, std::minus<>());
      store(op.k_cache, to, centered);
      store(op.v_cache, to, op.v.f32() + from);
    }
  }
}

void CpuBackend::run(const SiluMul& op) {
  pool_.chunks(op.out.size(), kSerialElements / 8, [&](std::int64_t begin, std::int64_t end, int) {
    kernels_->silu_mul(op.gate.f32() + begin, op.up.f32() + begin, end - begin,
                       op.out.f32() + begin);
  });
}

// All threads look for the likeliest token. Other choices are the reference's.
void CpuBackend::run(const Sample& op) {
  for (std::int64_t i = 0; i < op.logits.rows(); ++i) {
    const auto of_row = [i](const Tensor& t) { return t.slice(i, i + 1); };
    const std::int32_t seq = op.seq.i32()[i];
    SampleParams params;
    std::memcpy(&params, op.params.row(seq), sizeof params);
    if (params.temp != 0 || params.repeat_penalty != 1) {
      ReferenceBackend::run(Sample{of_row(op.out), of_row(op.logit), op.seen, of_row(op.logits),
                                   of_row(op.seq), of_row(op.pos), op.params});
      continue;
    }
    const std::span<const float> logits(of_row(op.logits).f32(), op.logits.cols());
    const std::int32_t id = likeliest(logits);
    op.out.i32()[i] = id;
    op.logit.f32()[i] = logits[id];
    op.seen.as<std::int8_t>()[seq * op.logits.cols() + id] = 1;
  }
}

std::int32_t CpuBackend::likeliest(std::span<const float> logits) {
  const auto n = static_cast<std::int64_t>(logits.size());
  std::vector<std::int64_t> best((n + kSerialElements - 1) / kSerialElements);  // of each chunk
  pool_.chunks(n, kSerialElements, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t c = begin; c < end; c += kSerialElements) {
      best[c / kSerialElements] =
          c + kernels_->first_largest(logits.data() + c, std::min(kSerialElements, end - c));
    }
  });
  std::int64_t first = 0;
  float largest = -std::numeric_limits<float>::infinity();
  for (const std::int64_t i : best) {
    if (!(logits[i] > largest)) continue;
    largest = logits[i];
    first = i;
  }
  return static_cast<std::int32_t>(first);
}

void CpuBackend::run(const Add& op) {
  pool_.chunks(op.x.size(), kSerialElements, [&](std::int64_t begin, std::int64_t end, int) {
    kernels_->add(op.x.f32() + begin, op.y.f32() + begin, end - begin);
  });
}

}  // namespace qwen
