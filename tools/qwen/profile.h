// Where the time of a step goes, and what a step must read.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/backend.h"

namespace qwen::cli {

// Waits until `op`, the last one that was queued, has run.
void wait_for(Backend& backend, const Op& op);

// Time and bytes of each kind of op, over all layers. A kind is the tap: "q_proj", "attn_out".
class Profile : public Observer {
 public:
  struct Row {
    std::string op;
    std::string tap;
    std::int64_t calls = 0;
    double seconds = 0;
    std::int64_t bytes = 0;  // at least moved
  };

  // `kv_len`: positions that a token attends to, on average. On a backend that queues ops each one
  // is waited for, and the cost of waiting for nothing is taken off; what is left has the start of
  // the op in it, which a queue would hide.
  Profile(Backend& backend, std::int64_t kv_len) : backend_(backend), kv_len_(kv_len) {}

  void before(const Op& op, const Tap& tap) override;
  void after(const Op& op, const Tap& tap) override;

  // The slowest first.
  std::vector<Row> rows() const;

 private:
  Backend& backend_;
  std::int64_t kv_len_;
  double wait_s_ = -1;  // of waiting for nothing; not measured yet
  std::chrono::steady_clock::time_point start_;
  std::map<std::string, Row, std::less<>> rows_;
};

// Counts the bytes of weights that a step reads, and of keys and values per position.
class StepBytes : public Observer {
 public:
  void after(const Op& op, const Tap& tap) override;
  std::int64_t weights() const { return weights_; }
  std::int64_t kv_per_position() const { return kv_per_position_; }

 private:
  std::int64_t weights_ = 0;
  std::int64_t kv_per_position_ = 0;
};

}  // namespace qwen::cli
