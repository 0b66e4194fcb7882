// The key/value cache of a session: the memory of all layers, and which pages belong to which
// sequence.
#pragma once

#include <vector>

#include "core/backend.h"

namespace qwen {

struct KvCacheShape {
  std::int64_t n_layers = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t n_seqs = 1;
  std::int64_t ctx = 0;  // positions per sequence
  DType dtype = DType::kF32;

  std::int64_t pages_per_seq() const;
  // Keys and values of all layers and sequences; 2^63 - 1 where that is more.
  std::size_t bytes() const;
};

class KvCache {
 public:
  // Positions per page. A page is the tile of keys that the CPU's attention works on: 64 keys of
  // one head are 16 KiB in F32 and stay in L1, and little is wasted at the end of a sequence.
  static constexpr std::int64_t kPageTokens = 64;

  // Allocates everything. Unused slots hold not-a-number if `poison` is set, so that a read outside
  // the window shows. Throws Error (Exit::kOutOfMemory).
  KvCache(Backend& backend, const KvCacheShape& shape, bool poison);

  Tensor k(std::int64_t layer) const;      // (n_pages, n_kv_heads, page_tokens, head_dim)
  Tensor v(std::int64_t layer) const;      // same
  Tensor pages() const { return pages_; }  // (n_seqs, pages_per_seq) I32; -1: no page

  // Makes positions [0, n) of `seq` usable. Throws Error (Exit::kContext) beyond ctx.
  void reserve(std::int64_t seq, std::int64_t n);
  // Gives the pages of `seq` back; they are cleared (or poisoned) before another sequence gets
  // them.
  void release(std::int64_t seq);

  const KvCacheShape& shape() const { return shape_; }

 private:
  Tensor layer_tensor(std::int64_t index) const;
  void clear_page(std::int32_t page);
  void upload_pages();

  Backend& backend_;
  KvCacheShape shape_;
  bool poison_;
  Buffer memory_;  // layers x (K, V)
  Buffer pages_memory_;
  Tensor pages_;
  std::vector<std::int32_t> table_;       // host copy of pages_
  std::vector<std::int32_t> free_pages_;  // the next one to hand out is at the back
};

}  // namespace qwen
