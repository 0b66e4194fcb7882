// Runs of tiny models on any backend, and how far apart two correct ones may be.
#pragma once

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "core/session.h"
#include "loader/weights.h"
#include "tests/fixtures/tiny_model.h"

namespace qwen::testing {

struct TinyModel {
  std::string name;
  fixtures::TinyModelSpec spec;
};
inline void PrintTo(const TinyModel& tiny, std::ostream* out) { *out << tiny.name; }

// Groups of 2, 7, 3 and 4 query heads; head_dim 64 and 128; tied and untied heads; weights of one
// format, of two and of three; with the outliers of real models, and one without.
std::vector<TinyModel> tiny_models();

// A tiny model on a backend, which must outlive it.
struct PlacedModel {
  PlacedModel(const TinyModel& tiny, Backend& backend);
  std::unique_ptr<GgufModelFile> file;
  std::unique_ptr<Model> model;
};

using Ids = std::vector<std::int32_t>;

// Ordinary tokens of the tiny models.
Ids random_text(std::size_t n, std::uint64_t seed);

std::vector<float> read_floats(Backend& backend, const Tensor& tensor);

// The keys and values of positions [0, n) of a sequence in all layers, as numbers.
std::vector<float> cached(Session& session, std::int32_t seq, std::int64_t n);

// What a run leaves: the last logits of each sequence, and its cached keys and values.
struct RunResult {
  std::vector<std::vector<float>> logits;
  std::vector<std::vector<float>> cache;
};

// How texts are fed: in steps of the given sizes (the rest in one); all texts advance together.
struct Feed {
  std::vector<Ids> texts;
  std::vector<std::size_t> cuts = {};
  DType kv_dtype = DType::kF32;
  bool poison = true;
};

RunResult run(const TinyModel& tiny, Backend& backend, const Feed& feed);

// The largest difference; not-a-number if there is one.
double distance(const std::vector<float>& a, const std::vector<float>& b);

struct Drift {
  double logits = 0, cache = 0;
};

// Three times the largest drift of 8 twins of each sequence from the exact run. A twin is the
// reference with each output moved at random by up to the bound that the contracts of `backend`
// allow, and so says how far a correct run may be off at the end of the network, where no closed
// bound is known. Three times: the largest of 8 samples is not the largest there is.
std::vector<Drift> allowed_drift(const TinyModel& tiny, Backend& backend, const Feed& feed);

}  // namespace qwen::testing
