// A backend with a fault in it: runs every op on another backend, except those that the fault is
// planted in, which are computed by one of the deliberately wrong variants, or run with a mishap.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/crosscheck/mishaps.h"
#include "core/crosscheck/variants.h"
#include "core/session.h"

namespace qwen::crosscheck {

// Where a variant is planted.
struct Plant {
  std::string_view tap;           // "rope_q"
  std::string_view cause;         // of the variant
  int layer = -1;                 // -1: in all
  Mishap mishap = Mishap::kNone;  // instead of a variant; `cause` is what it must be called
  int after = 0;                  // this many runs of each op that are right come first
};

// Where a plant has changed an output.
struct Planted {
  bool by_more_than_rounding = false;
  bool is_clear = false;  // and by more than any tolerance
  // The tokens, up to the first that is clear: one of them is the first that a check finds.
  struct Place {
    std::int32_t seq;
    std::int64_t token;  // its position
  };
  std::vector<Place> places = {};
};
struct PlantedOutput {
  std::string_view tap;
  int layer;
  std::string_view output;
  bool operator<(const PlantedOutput& other) const {
    return std::tie(tap, layer, output) < std::tie(other.tap, other.layer, other.output);
  }
};

class FaultyBackend : public Backend {
 public:
  // Both backends must outlive it; the reference works in host memory.
  FaultyBackend(Backend& inner, Backend& reference, std::vector<Plant> plants)
      : inner_(inner), reference_(reference), plants_(std::move(plants)), mishaps_(inner) {}

  // From now on these faults instead; planted() begins anew.
  void plant(std::vector<Plant> plants) {
    plants_ = std::move(plants);
    n_runs_.clear();
    planted_.clear();
    mishaps_.reset();
  }
  // The tokens of the ops to come, without which planted() knows none.
  void begin_step(std::span<const TokenInput> tokens) {
    tokens_.assign(tokens.begin(), tokens.end());
  }
  const std::map<PlantedOutput, Planted>& planted() const { return planted_; }

  std::string_view name() const override { return inner_.name(); }
  std::string description() const override { return inner_.description(); }
  Contract contract(const Op& op) const override { return inner_.contract(op); }
  Buffer allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  Buffer allocate_host(std::size_t bytes) override { return inner_.allocate_host(bytes); }
  void reserve(const Plan& plan) override { inner_.reserve(plan); }
  void write(const Tensor& dst, const void* src) override { inner_.write(dst, src); }
  void read(void* dst, const Tensor& src) override { inner_.read(dst, src); }
  std::uint64_t read_later(void* dst, const Tensor& src) override {
    return inner_.read_later(dst, src);
  }
  void wait(std::uint64_t read) override { inner_.wait(read); }
  int queue_depth() const override { return inner_.queue_depth(); }
  std::int64_t step_tokens() const override { return inner_.step_tokens(); }
  Tensor place_weight(const Tensor& host) override;
  void drop_weight(const Tensor& weight) override;
  void read_weight(void* dst, const Tensor& weight) override { inner_.read_weight(dst, weight); }

 private:
  void run(const Embed& op) override { run_op(op); }
  void run(const RmsNorm& op) override { run_op(op); }
  void run(const Gemm& op) override { run_op(op); }
  void run(const AddBias& op) override { run_op(op); }
  void run(const Rope& op) override { run_op(op); }
  void run(const KvWrite& op) override { run_op(op); }
  void run(const Attention& op) override { run_op(op); }
  void run(const SiluMul& op) override { run_op(op); }
  void run(const Add& op) override { run_op(op); }
  void run(const TakeRows& op) override { run_op(op); }
  void run(const Sample& op) override { run_op(op); }
  void run(const Advance& op) override { run_op(op); }

  void run_op(const Op& op);
  void run_planted(const Plant& plant, const Op& op);
  // Whether what the current op is to leave is not `right`, an op in host memory, by more than
  // rounding. Notes where.
  bool note_changes(Op& right, const std::vector<Tensor>& got);
  // The op with copies of its inputs, in scratch_.
  Op in_host_memory(const Op& op);

  Backend& inner_;
  Backend& reference_;
  std::vector<Plant> plants_;
  std::map<const std::byte*, Tensor> host_;  // of placed weights
  MishapRunner mishaps_;
  Scratch scratch_;
  std::vector<TokenInput> tokens_;
  std::map<std::pair<std::string_view, int>, int> n_runs_;  // of planted ops: tap and layer
  std::map<PlantedOutput, Planted> planted_;
};

}  // namespace qwen::crosscheck
