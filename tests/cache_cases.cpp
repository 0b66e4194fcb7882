#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/half.h"
#include "core/kv_layout.h"
#include "tests/op_case_parts.h"

namespace qwen::testing {
namespace {

using fixtures::Random;

std::vector<std::int32_t> range(std::int32_t begin, std::int32_t end) {
  std::vector<std::int32_t> v(end - begin);
  std::iota(v.begin(), v.end(), begin);
  return v;
}

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

OpCase rope_case(const Batch& batch, const Heads& h) {
  return {
      "Rope_" + batch.name + "_" + h.name(), [batch, h](GuardedMemory& m, Random& r) -> Op {
        const Rows rows = make_rows(m, r, batch);
        const Tensor inv_freq = m.take(DType::kF32, {h.head_dim / 2});
        for (std::int64_t i = 0; i < h.head_dim / 2; ++i) {
          inv_freq.f32()[i] = static_cast<float>(
              std::pow(1e6, -2.0 * static_cast<double>(i) / static_cast<double>(h.head_dim)));
        }
        return Rope{floats(m, r, {rows.n_tokens, h.n_heads, h.head_dim}, 50), rows.pos, inv_freq};
      }};
}

OpCase kv_write_case(const Batch& batch, const Heads& h, DType dtype) {
  return {"KvWrite_" + batch.name + "_" + h.name() + "_" + type_name(dtype),
          [batch, h, dtype](GuardedMemory& m, Random& r) -> Op {
            const Rows rows = make_rows(m, r, batch);
            const Tensor k = m.take(dtype, {rows.n_pages, h.n_kv_heads, kPage, h.head_dim});
            const Tensor v = m.take(dtype, {rows.n_pages, h.n_kv_heads, kPage, h.head_dim});
            return KvWrite{k,
                           v,
                           floats(m, r, {rows.n_tokens, h.n_kv_heads, h.head_dim}, 200),
                           floats(m, r, {rows.n_tokens, h.n_kv_heads, h.head_dim}),
                           floats(m, r, {h.n_kv_heads, h.head_dim}, 200),
                           rows.pos,
                           rows.seq,
                           rows.pages};
          }};
}

// Batches of which every head shape and both cache types are tested, with and without outliers.
void add_short_cases(std::vector<OpCase>& cases) {
  const std::vector<Batch> batches = {
      {"first", {{0}}},
      {"decode3", {{1}, {64}, {199}}},
      {"prefill", {range(0, 70)}},
      {"ragged", {range(0, 5), {127}, range(60, 66), {2}}},
  };
  const std::vector<Heads> heads = {{14, 2, 64}, {12, 2, 128}, {8, 1, 80}, {3, 3, 96}, {10, 2, 72}};
  for (const Batch& batch : batches) {
    for (const Heads& h : heads) {
      cases.push_back(rope_case(batch, h));
      for (const DType dtype : {DType::kF32, DType::kF16}) {
        cases.push_back(kv_write_case(batch, h, dtype));
        cases.push_back(attention_case(batch, h, dtype, false));
        cases.push_back(attention_case(batch, h, dtype, true));
      }
    }
  }
}

// The lengths and batches of real use, with the heads of the 0.5B and 1.5B models.
void add_long_cases(std::vector<OpCase>& cases) {
  for (const Heads h : {Heads{14, 2, 64}, Heads{12, 2, 128}}) {
    for (const DType dtype : {DType::kF32, DType::kF16}) {
      for (const std::int32_t length : {2, 64, 65, 511, 1000, 4097, 12288}) {
        const std::string name = "length" + std::to_string(length);
        cases.push_back(attention_case({name, {{length - 1}}}, h, dtype, false));
        cases.push_back(
            attention_case({name + "x3", {{length - 1}, {0}, {length / 2}}}, h, dtype, false));
      }
      cases.push_back(attention_case({"length4097", {{4096}}}, h, dtype, true));
    }
    for (const std::int32_t n_seqs : {8, 9, 64}) {
      Batch batch{"decode" + std::to_string(n_seqs), {}};
      for (std::int32_t s = 0; s < n_seqs; ++s) batch.positions.push_back({s * 37 % 201});
      cases.push_back(attention_case(batch, h, DType::kF16, false));
    }
    for (const std::int32_t n : {200, 700}) {
      const std::string name = "prefill" + std::to_string(n);
      // One group is enough for the longer ones: the reference takes seconds.
      const Heads few = n == 200 ? h : Heads{h.n_heads / 2, 1, h.head_dim};
      cases.push_back(attention_case({name, {range(0, n)}}, few, DType::kF16, n == 200));
      // From the start, in the middle of a text, and a decode among them.
      const Batch ragged{name + "x3", {range(0, n / 2), range(75, 75 + n / 2 - 1), {130}}};
      cases.push_back(attention_case(ragged, few, DType::kF16, false));
    }
  }
}

}  // namespace

bool Batch::decode() const {
  return std::all_of(positions.begin(), positions.end(),
                     [](const auto& of_seq) { return of_seq.size() == 1; });
}

std::string Heads::name() const {
  return std::to_string(n_heads) + "_" + std::to_string(n_kv_heads) + "_" +
         std::to_string(head_dim);
}

OpCase attention_case(const Batch& batch, const Heads& h, DType dtype, bool huge) {
  return {"Attention_" + batch.name + "_" + h.name() + "_" + type_name(dtype) +
              (huge ? "_outliers" : ""),
          [batch, h, dtype, huge](GuardedMemory& m, Random& r) -> Op {
            const Rows rows = make_rows(m, r, batch);
            const Tensor k = m.take(dtype, {rows.n_pages, h.n_kv_heads, kPage, h.head_dim});
            const Tensor v = m.take(dtype, {rows.n_pages, h.n_kv_heads, kPage, h.head_dim});
            fill_cache(batch, k, v, rows.pages, r, huge);
            const Tensor q = floats(m, r, {rows.n_tokens, h.n_heads, h.head_dim});
            if (huge) {
              for (std::int64_t i = 7; i < q.size(); i += 16) q.f32()[i] += 120.0f;
            }
            return Attention{output(m, {rows.n_tokens, h.n_heads, h.head_dim}),
                             output(m, {rows.n_tokens, h.n_heads}),
                             q,
                             k,
                             v,
                             rows.pos,
                             rows.seq,
                             rows.pages,
                             static_cast<float>(1.0 / std::sqrt(static_cast<double>(h.head_dim))),
                             batch.decode()};
          }};
}

void add_cache_cases(std::vector<OpCase>& cases) {
  add_short_cases(cases);
  add_long_cases(cases);
}

}  // namespace qwen::testing
