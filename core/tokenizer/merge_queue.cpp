#include "core/tokenizer/merge_queue.h"

#include <cassert>

namespace qwen {
namespace {

// The FIFOs of all ranks are 3 MB to clear, once per text: below this length the heap alone is
// faster.
constexpr std::size_t kFifosFrom = 4096;

std::uint64_t packed(std::uint32_t rank, std::uint32_t pos) {
  return static_cast<std::uint64_t>(rank) << 32 | pos;
}

}  // namespace

void MergeQueue::prepare(std::size_t n_ranks, std::size_t n_bytes) {
  assert(heap_.empty());
  use_fifos_ = n_bytes >= kFifosFrom;
  if (!use_fifos_) return;
  // Popping to the end has closed every FIFO, so they are ready for the next piece as they are.
  if (fifos_.size() != n_ranks) fifos_.assign(n_ranks, {});
  nodes_.clear();
  nodes_.reserve(n_bytes);
  free_ = 0;
}

void MergeQueue::push(MergeCandidate candidate) {
  if (use_fifos_) {
    Fifo& fifo = fifos_[candidate.rank];
    if (fifo.open && candidate.pos > fifo.last_pos) {
      append(fifo, candidate.pos);
      return;
    }
    if (!fifo.open) {
      fifo.open = true;
      fifo.head_pos = fifo.last_pos = candidate.pos;
    }
  }
  heap_.push(packed(candidate.rank, candidate.pos));
}

std::optional<MergeCandidate> MergeQueue::pop() {
  if (heap_.empty()) return std::nullopt;
  const std::uint64_t top = heap_.top();
  heap_.pop();
  const MergeCandidate candidate = {static_cast<std::uint32_t>(top >> 32),
                                    static_cast<std::uint32_t>(top)};
  if (use_fifos_) {
    Fifo& fifo = fifos_[candidate.rank];
    if (fifo.open && fifo.head_pos == candidate.pos) advance(fifo, candidate.rank);
  }
  return candidate;
}

void MergeQueue::append(Fifo& fifo, std::uint32_t pos) {
  std::uint32_t node = free_;
  if (node != 0) {
    free_ = nodes_[node - 1].next;
    nodes_[node - 1] = {pos, 0};
  } else {
    nodes_.push_back({pos, 0});
    node = static_cast<std::uint32_t>(nodes_.size());
  }
  if (fifo.last != 0) {
    nodes_[fifo.last - 1].next = node;
  } else {
    fifo.first = node;
  }
  fifo.last = node;
  fifo.last_pos = pos;
}

void MergeQueue::advance(Fifo& fifo, std::uint32_t rank) {
  const std::uint32_t node = fifo.first;
  if (node == 0) {
    fifo.open = false;
    return;
  }
  fifo.head_pos = nodes_[node - 1].pos;
  fifo.first = nodes_[node - 1].next;
  if (fifo.first == 0) fifo.last = 0;
  nodes_[node - 1].next = free_;
  free_ = node;
  heap_.push(packed(rank, fifo.head_pos));
}

}  // namespace qwen
