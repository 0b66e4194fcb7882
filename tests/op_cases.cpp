#include "tests/op_cases.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "core/blocks.h"
#include "core/kv_layout.h"
#include "tests/fixtures/random_blocks.h"

namespace qwen::testing {
namespace {

using fixtures::Random;

constexpr std::size_t kGuard = 64;  // bytes on either side; keeps the alignment
constexpr std::uint8_t kGuardByte = 0xA5;

Tensor floats(GuardedMemory& m, Random& r, std::initializer_list<std::int64_t> dims,
              double deviation = 1) {
  const Tensor t = m.take(DType::kF32, dims);
  for (std::int64_t i = 0; i < t.size(); ++i)
    t.f32()[i] = static_cast<float>(deviation * r.normal());
  return t;
}

Tensor weights(GuardedMemory& m, Random& r, DType dtype, std::int64_t rows, std::int64_t cols) {
  const Tensor t = m.take(dtype, {rows, cols});
  fixtures::Bytes bytes;
  fixtures::append_random(bytes, dtype, t.size(), 0.05, r);
  std::memcpy(t.data, bytes.data(), bytes.size());
  return t;
}

Tensor integers(GuardedMemory& m, const std::vector<std::int32_t>& values) {
  const Tensor t = m.take(DType::kI32, {static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.i32());
  return t;
}

Tensor output(GuardedMemory& m, std::initializer_list<std::int64_t> dims) {
  return m.take(DType::kF32, dims);
}

std::string type_name(DType dtype) { return std::string(info(dtype).name); }

std::vector<DType> weight_types() {
  std::vector<DType> types;
  for (const DTypeInfo& row : dtype_table()) {
    if (row.decode_block != nullptr) types.push_back(row.dtype);
  }
  return types;
}

void add_simple_cases(std::vector<OpCase>& cases) {
  for (const DType dtype : weight_types()) {
    cases.push_back({"Embed_" + type_name(dtype), [dtype](GuardedMemory& m, Random& r) -> Op {
                       return Embed{output(m, {5, 512}), weights(m, r, dtype, 300, 512),
                                    integers(m, {299, 0, 7, 7, 141})};
                     }});
  }
  struct Shape {
    std::int64_t rows, cols;
  };
  for (const auto [rows, cols] : {Shape{1, 896}, Shape{3, 129}, Shape{70, 1536}, Shape{2, 7}}) {
    const std::string suffix = std::to_string(rows) + "x" + std::to_string(cols);
    const std::int64_t n = rows;
    const std::int64_t d = cols;
    // An embedding-sized input, where eps matters, and one with the residual spike of real models.
    cases.push_back({"RmsNorm_small_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       return RmsNorm{output(m, {n, d}), floats(m, r, {n, d}, 0.008),
                                      floats(m, r, {d}, 7), 1e-6f};
                     }});
    cases.push_back({"RmsNorm_spike_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       const Tensor x = floats(m, r, {n, d});
                       x.f32()[d / 2] = 2180.0f;
                       return RmsNorm{output(m, {n, d}), x, floats(m, r, {d}, 7), 1e-6f};
                     }});
    cases.push_back({"AddBias_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       return AddBias{floats(m, r, {n, d}), floats(m, r, {d}, 40)};
                     }});
    cases.push_back({"Add_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       return Add{floats(m, r, {n, d}, 30), floats(m, r, {n, d})};
                     }});
    cases.push_back(
        {"SiluMul_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
           return SiluMul{output(m, {n, d}), floats(m, r, {n, d}, 20), floats(m, r, {n, d}, 3)};
         }});
    cases.push_back({"TakeRows_" + suffix, [n, d](GuardedMemory& m, Random& r) -> Op {
                       const auto last = static_cast<std::int32_t>(n - 1);
                       return TakeRows{output(m, {3, d}), floats(m, r, {n, d}),
                                       integers(m, {last, 0, last / 2})};
                     }});
  }
}

void add_gemm_cases(std::vector<OpCase>& cases) {
  struct Shape {
    std::int64_t tokens, rows, cols;
  };
  const auto add = [&](DType dtype, Shape s) {
    cases.push_back({"Gemm_" + type_name(dtype) + "_" + std::to_string(s.tokens) + "x" +
                         std::to_string(s.rows) + "x" + std::to_string(s.cols),
                     [dtype, s](GuardedMemory& m, Random& r) -> Op {
                       return Gemm{output(m, {s.tokens, s.rows}),
                                   floats(m, r, {s.tokens, s.cols}, 3),
                                   weights(m, r, dtype, s.rows, s.cols)};
                     }});
  };
  for (const DType dtype : weight_types()) {
    // One token, a few, the first panel size, and a ragged many; rows that no tile divides.
    for (const Shape s : {Shape{1, 131, 768}, Shape{3, 57, 256}, Shape{7, 33, 512},
                          Shape{16, 59, 256}, Shape{17, 61, 768}, Shape{37, 130, 1280}}) {
      add(dtype, s);
    }
  }
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const Shape s : {Shape{1, 5, 37}, Shape{4, 19, 71}, Shape{33, 15, 1}, Shape{11, 896, 896},
                          Shape{18, 896, 896}})
      add(dtype, s);
  }
}

// A batch: for each sequence the positions whose tokens are in the step.
struct Batch {
  std::string name;
  std::vector<std::vector<std::int32_t>> positions;
};

std::vector<std::int32_t> range(std::int32_t begin, std::int32_t end) {
  std::vector<std::int32_t> v(end - begin);
  std::iota(v.begin(), v.end(), begin);
  return v;
}

struct Heads {
  std::int64_t n_heads, n_kv_heads, head_dim;
  std::string name() const {
    return std::to_string(n_heads) + "_" + std::to_string(n_kv_heads) + "_" +
           std::to_string(head_dim);
  }
};

constexpr std::int64_t kPage = 64;

// Positions, sequences and a page table whose pages are dealt out in shuffled order.
struct Rows {
  Tensor pos, seq, pages;
  std::int64_t n_tokens, n_pages;
};

Rows make_rows(GuardedMemory& m, Random& r, const Batch& batch) {
  std::vector<std::int32_t> pos, seq;
  std::int32_t longest = 0;
  for (std::size_t s = 0; s < batch.positions.size(); ++s) {
    for (const std::int32_t p : batch.positions[s]) {
      pos.push_back(p);
      seq.push_back(static_cast<std::int32_t>(s));
      longest = std::max(longest, p);
    }
  }
  const auto n_seqs = static_cast<std::int64_t>(batch.positions.size());
  const std::int64_t per_seq = longest / kPage + 1;
  std::vector<std::int32_t> pages = range(0, static_cast<std::int32_t>(n_seqs * per_seq));
  for (std::size_t i = pages.size(); i > 1; --i) std::swap(pages[i - 1], pages[r.below(i)]);
  const Tensor table = m.take(DType::kI32, {n_seqs, per_seq});
  std::copy(pages.begin(), pages.end(), table.i32());
  return {integers(m, pos), integers(m, seq), table, static_cast<std::int64_t>(pos.size()),
          n_seqs * per_seq};
}

// Fills the cached positions 0..last of every sequence; all other slots stay poisoned. Keys have
// the outliers of real models: a few dimensions that are large and nearly the same for all keys.
void fill_cache(const Batch& batch, const Tensor& k, const Tensor& v, const Tensor& pages,
                Random& r, bool huge) {
  const KvLayout layout = kv_layout(k, pages);
  for (std::size_t s = 0; s < batch.positions.size(); ++s) {
    for (std::int64_t head = 0; head < layout.n_kv_heads; ++head) {
      for (std::int32_t p = 0; p <= batch.positions[s].back(); ++p) {
        for (std::int64_t d = 0; d < layout.head_dim; ++d) {
          const std::int64_t at =
              kv_offset(layout, pages.i32(), static_cast<std::int64_t>(s), head, p, d);
          const double outlier = huge && d % 16 == 7 ? 150.0 : 0.0;
          const auto key = static_cast<float>(r.normal() + outlier);
          const auto value = static_cast<float>(r.normal());
          if (k.dtype == DType::kF32) {
            k.as<float>()[at] = key;
            v.as<float>()[at] = value;
          } else {
            k.as<std::uint16_t>()[at] = f32_to_f16(key);
            v.as<std::uint16_t>()[at] = f32_to_f16(value);
          }
        }
      }
    }
  }
}

void add_cache_cases(std::vector<OpCase>& cases) {
  const std::vector<Batch> batches = {
      {"first", {{0}}},
      {"decode3", {{1}, {64}, {199}}},
      {"prefill", {range(0, 70)}},
      {"ragged", {range(0, 5), {127}, range(60, 66), {2}}},
  };
  const std::vector<Heads> heads = {{14, 2, 64}, {12, 2, 128}, {8, 1, 80}, {3, 3, 96}, {10, 2, 72}};
  for (const Batch& batch : batches) {
    for (const Heads& h : heads) {
      cases.push_back(
          {"Rope_" + batch.name + "_" + h.name(), [batch, h](GuardedMemory& m, Random& r) -> Op {
             const Rows rows = make_rows(m, r, batch);
             const Tensor inv_freq = m.take(DType::kF32, {h.head_dim / 2});
             for (std::int64_t i = 0; i < h.head_dim / 2; ++i) {
               inv_freq.f32()[i] = static_cast<float>(
                   std::pow(1e6, -2.0 * static_cast<double>(i) / static_cast<double>(h.head_dim)));
             }
             return Rope{floats(m, r, {rows.n_tokens, h.n_heads, h.head_dim}, 50), rows.pos,
                         inv_freq};
           }});
      for (const DType dtype : {DType::kF32, DType::kF16}) {
        const std::string suffix = batch.name + "_" + h.name() + "_" + type_name(dtype);
        cases.push_back(
            {"KvWrite_" + suffix, [batch, h, dtype](GuardedMemory& m, Random& r) -> Op {
               const Rows rows = make_rows(m, r, batch);
               const Tensor k = m.take(dtype, {rows.n_pages, h.n_kv_heads, kPage, h.head_dim});
               const Tensor v = m.take(dtype, {rows.n_pages, h.n_kv_heads, kPage, h.head_dim});
               return KvWrite{k,
                              v,
                              floats(m, r, {rows.n_tokens, h.n_kv_heads, h.head_dim}, 200),
                              floats(m, r, {rows.n_tokens, h.n_kv_heads, h.head_dim}),
                              rows.pos,
                              rows.seq,
                              rows.pages};
             }});
        for (const bool huge : {false, true}) {
          cases.push_back(
              {"Attention_" + suffix + (huge ? "_outliers" : ""),
               [batch, h, dtype, huge](GuardedMemory& m, Random& r) -> Op {
                 const Rows rows = make_rows(m, r, batch);
                 const Tensor k = m.take(dtype, {rows.n_pages, h.n_kv_heads, kPage, h.head_dim});
                 const Tensor v = m.take(dtype, {rows.n_pages, h.n_kv_heads, kPage, h.head_dim});
                 fill_cache(batch, k, v, rows.pages, r, huge);
                 const Tensor q = floats(m, r, {rows.n_tokens, h.n_heads, h.head_dim});
                 if (huge) {
                   for (std::int64_t i = 7; i < q.size(); i += 16) q.f32()[i] += 120.0f;
                 }
                 return Attention{
                     output(m, {rows.n_tokens, h.n_heads, h.head_dim}),
                     output(m, {rows.n_tokens, h.n_heads}),
                     q,
                     k,
                     v,
                     rows.pos,
                     rows.seq,
                     rows.pages,
                     static_cast<float>(1.0 / std::sqrt(static_cast<double>(h.head_dim)))};
               }});
        }
      }
    }
  }
}

}  // namespace

Tensor GuardedMemory::take(DType dtype, std::initializer_list<std::int64_t> dims) {
  Tensor t(nullptr, dtype, dims);
  const std::size_t used = t.bytes();
  Block block{std::vector<std::uint8_t>(used + 3 * kGuard, kGuardByte), used};
  blocks_.push_back(std::move(block));
  t.data = data(blocks_.size() - 1);
  std::memset(t.data, 0xff, used);
  return t;
}

std::byte* GuardedMemory::data(std::size_t i) const {
  auto address = reinterpret_cast<std::uintptr_t>(blocks_[i].bytes.data()) + kGuard;
  address = (address + kGuard - 1) / kGuard * kGuard;
  return reinterpret_cast<std::byte*>(address);
}

int GuardedMemory::first_broken_guard() const {
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const auto* begin = reinterpret_cast<const std::uint8_t*>(data(i));
    const auto& bytes = blocks_[i].bytes;
    const auto start = static_cast<std::size_t>(begin - bytes.data());
    for (std::size_t j = 0; j < bytes.size(); ++j) {
      const bool inside = j >= start && j < start + blocks_[i].used;
      if (!inside && bytes[j] != kGuardByte) return static_cast<int>(i);
    }
  }
  return -1;
}

std::vector<OpCase> op_cases() {
  std::vector<OpCase> cases;
  add_simple_cases(cases);
  add_gemm_cases(cases);
  add_cache_cases(cases);
  return cases;
}

}  // namespace qwen::testing
