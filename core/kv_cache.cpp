#include "core/kv_cache.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/checked.h"
#include "core/error.h"

namespace qwen {
namespace {

constexpr std::int32_t kNoPage = -1;
// What no memory holds, and what still leaves room to add the bytes of something else.
constexpr std::uint64_t kTooManyBytes = INT64_MAX;
// All bytes 0xff are a not-a-number both as F32 and as F16.
constexpr std::uint8_t kPoisonByte = 0xff;

}  // namespace

std::int64_t KvCacheShape::pages_per_seq() const {
  return (ctx + KvCache::kPageTokens - 1) / KvCache::kPageTokens;
}

std::size_t KvCacheShape::bytes() const {
  const auto u64 = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const std::size_t page = bytes_of(dtype, n_kv_heads * KvCache::kPageTokens * head_dim);
  const Checked bytes = Checked(2) * u64(n_layers) * u64(n_seqs) * u64(pages_per_seq()) * page;
  return bytes.fits(kTooManyBytes) ? bytes.value() : kTooManyBytes;
}

KvCache::KvCache(Backend& backend, const KvCacheShape& shape, bool poison)
    : backend_(backend),
      shape_(shape),
      poison_(poison),
      memory_(backend.allocate(shape.bytes())),
      pages_memory_(backend.allocate(bytes_of(DType::kI32, shape.n_seqs * shape.pages_per_seq()))),
      pages_(pages_memory_.get(), DType::kI32, {shape.n_seqs, shape.pages_per_seq()}),
      table_(pages_.size(), kNoPage) {
  const std::int64_t n_pages = shape.n_seqs * shape.pages_per_seq();
  for (std::int64_t page = n_pages - 1; page >= 0; --page) {
    free_pages_.push_back(static_cast<std::int32_t>(page));
  }
  if (poison_) {
    for (std::int32_t page = 0; page < n_pages; ++page) clear_page(page);
  }
  upload_pages();
}

Tensor KvCache::layer_tensor(std::int64_t index) const {
  const std::int64_t n_pages = shape_.n_seqs * shape_.pages_per_seq();
  const Tensor t(memory_.get(), shape_.dtype,
                 {n_pages, shape_.n_kv_heads, kPageTokens, shape_.head_dim});
  return Tensor(memory_.get() + index * t.bytes(), shape_.dtype, t.dims());
}

Tensor KvCache::k(std::int64_t layer) const { return layer_tensor(2 * layer); }
Tensor KvCache::v(std::int64_t layer) const { return layer_tensor(2 * layer + 1); }

void KvCache::reserve(std::int64_t seq, std::int64_t n) {
  if (n > shape_.ctx) {
    throw Error({.exit = Exit::kContext,
                 .code = "context_full",
                 .message = "position " + std::to_string(n - 1) + " is beyond the context of " +
                            std::to_string(shape_.ctx)});
  }
  const std::int64_t needed = (n + kPageTokens - 1) / kPageTokens;
  std::int32_t* row = table_.data() + seq * shape_.pages_per_seq();
  bool changed = false;
  for (std::int64_t i = 0; i < needed; ++i) {
    if (row[i] != kNoPage) continue;
    row[i] = free_pages_.back();  // never empty: there is a page for every (seq, index)
    free_pages_.pop_back();
    changed = true;
  }
  if (changed) upload_pages();
}

void KvCache::release(std::int64_t seq) {
  std::int32_t* row = table_.data() + seq * shape_.pages_per_seq();
  for (std::int64_t i = shape_.pages_per_seq() - 1; i >= 0; --i) {
    if (row[i] == kNoPage) continue;
    clear_page(row[i]);
    free_pages_.push_back(row[i]);
    row[i] = kNoPage;
  }
  upload_pages();
}

void KvCache::clear_page(std::int32_t page) {
  const Tensor one = k(0).slice(page, page + 1);
  const std::vector<std::uint8_t> fill(one.bytes(), poison_ ? kPoisonByte : 0);
  for (std::int64_t i = 0; i < 2 * shape_.n_layers; ++i) {
    backend_.write(layer_tensor(i).slice(page, page + 1), fill.data());
  }
}

void KvCache::upload_pages() { backend_.write(pages_, table_.data()); }

}  // namespace qwen
