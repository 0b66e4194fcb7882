// Against outside truth: runs a text on a device and compares the values of its taps with arrays
// that another implementation made of the same model and text. Neither side has a closed bound for
// a whole chain of ops: they agree if each array differs by no more than a share of its largest
// value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/crosscheck/npy.h"
#include "core/model.h"

namespace qwen::crosscheck {

// Of the largest value of a token, or of an array of one: two correct chains in FP32 stay within
// it. (tests/golden: an FP32 reference is off from FP64 by up to 4.2e-5 of an array's largest
// value, and the CPU's exact path from that reference by up to 3.0e-5 of a token's.) Not of a whole
// array: the residual stream of a first token may be thousands of times that of others.
inline constexpr double kOutsideTolerance = 1e-4;

// Values of one tap.
struct OutsideArray {
  std::string name;  // as its file is called, for messages
  std::string tap;   // "q_proj"
  int layer = -1;    // -1 outside the layers
  NpyArray values;   // (n_tokens, ...) floats; without the first axis: of the last token
};

// One array beside what the device made.
struct Compared {
  std::string name;
  Tap tap;  // of the model
  std::vector<std::int64_t> shape;
  // Of the token whose error is the largest beside its values.
  double largest = 0;  // |value|
  double error = 0;    // largest |difference|; infinite where a value is not finite
  double share() const;
  bool differs() const { return share() > kOutsideTolerance; }
  // The worst element of the first token at which it differs.
  struct Place {
    std::int64_t token = 0;
    std::vector<std::int64_t> coords = {};
    double got = 0;
    double outside = 0;
  } first = {};
};

struct AgainstResult {
  // All ops computed in FP32, with an FP32 cache: only then is a difference a fault.
  bool is_f32 = true;
  std::vector<Compared> compared;  // in execution order
};

struct AgainstOptions {
  std::vector<std::int32_t> ids;
  DType kv_dtype = DType::kF32;
};

// Values that exist inside an op only, or are shifted by what is taken from the keys
// (KvWrite::k_center): "attn_scores", "attn_probs", "attn_lse".
bool is_inside_op(std::string_view tap);

// `backend` is the one the model is placed on. Throws Error (Exit::kModel) for an array of a tap
// that the model does not have ("no_such_tap") or of another shape ("wrong_shape").
AgainstResult against(const Model& model, Backend& backend, const std::vector<OutsideArray>& arrays,
                      const AgainstOptions& options);

}  // namespace qwen::crosscheck
