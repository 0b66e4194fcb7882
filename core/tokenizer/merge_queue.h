// The candidate merges of one long piece, lowest rank first, then leftmost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <queue>
#include <vector>

namespace qwen {

struct MergeCandidate {
  std::uint32_t rank;
  std::uint32_t pos;  // byte offset of the left token in the piece
};

// A binary heap, with one addition for very long pieces: candidates of one rank nearly always
// arrive from left to right, so they wait in a FIFO and only its head is in the heap. A run of 20
// million equal bytes then needs a heap of two or three, not of 20 million (each of whose pops
// would miss the cache two dozen times). A candidate that arrives out of order goes straight into
// the heap: the order of pops is exact in any case.
class MergeQueue {
 public:
  // Must be empty. `n_ranks`: ranks are below it. `n_bytes`: length of the piece that comes next.
  void prepare(std::size_t n_ranks, std::size_t n_bytes);
  void push(MergeCandidate candidate);
  std::optional<MergeCandidate> pop();

 private:
  struct Fifo {
    std::uint32_t head_pos = 0;  // the one that is in the heap
    std::uint32_t last_pos = 0;
    std::uint32_t first = 0;  // node indices plus one; 0: none
    std::uint32_t last = 0;
    bool open = false;  // a head is in the heap
  };
  struct Node {
    std::uint32_t pos;
    std::uint32_t next;  // node index plus one
  };

  void append(Fifo& fifo, std::uint32_t pos);
  void advance(Fifo& fifo, std::uint32_t rank);

  std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>> heap_;
  bool use_fifos_ = false;
  std::vector<Fifo> fifos_;  // by rank
  std::vector<Node> nodes_;
  std::uint32_t free_ = 0;  // list of free nodes: index plus one
};

}  // namespace qwen
