#include <cmath>

#include "core/blocks.h"
#include "core/crosscheck/variants.h"
#include "core/half.h"

namespace qwen::crosscheck {
namespace {

const float* input(const Gemm& op, std::int64_t token) { return op.x.f32() + token * op.x.cols(); }

// The product of token t with whatever weight(c) says, over columns [0, n).
template <class Weight>
WrongSum product(const float* x, std::int64_t n, const Weight& weight) {
  WrongSum s;
  for (std::int64_t c = 0; c < n; ++c) {
    const double p = double{x[c]} * weight(c);
    s.sum += p;
    s.size += std::abs(p);
  }
  return s;
}

template <class Weight>
bool whole(const Gemm& op, std::int64_t token, WrongSum& result, const Weight& weight) {
  result = product(input(op, token), op.x.cols(), weight);
  return true;
}

constexpr GemmVariant kGemmVariants[] = {
    {"the weight is read transposed", false,
     [](WeightReader& w, const Gemm& op, std::int64_t token, std::int64_t row, WrongSum& s) {
       return whole(op, token, s, [&](std::int64_t c) { return w.flat(c * w.rows() + row); });
     }},
    {"the weight's rows are read one element too far apart", false,
     [](WeightReader& w, const Gemm& op, std::int64_t token, std::int64_t row, WrongSum& s) {
       const std::int64_t n = w.rows() * w.cols();
       return whole(op, token, s,
                    [&](std::int64_t c) { return w.flat((row * (w.cols() + 1) + c) % n); });
     }},
    {"the weight's rows are shifted by one", false,
     [](WeightReader& w, const Gemm& op, std::int64_t token, std::int64_t row, WrongSum& s) {
       const float* r = w.row((row + 1) % w.rows());
       return whole(op, token, s, [&](std::int64_t c) { return double{r[c]}; });
     }},
    {"neighbouring rows of the weight are swapped", false,
     [](WeightReader& w, const Gemm& op, std::int64_t token, std::int64_t row, WrongSum& s) {
       const std::int64_t other = (row ^ 1) < w.rows() ? row ^ 1 : row;
       const float* r = w.row(other);
       return whole(op, token, s, [&](std::int64_t c) { return double{r[c]}; });
     }},
    {"the last 32 columns are left out", false,
     [](WeightReader& w, const Gemm& op, std::int64_t token, std::int64_t row, WrongSum& s) {
       if (w.cols() <= 32) return false;
       const float* r = w.row(row);
       s = product(input(op, token), w.cols() - 32, [&](std::int64_t c) { return double{r[c]}; });
       return true;
     }},
    {"the last rows of the output are zero", false,
     [](WeightReader& w, const Gemm& op, std::int64_t token, std::int64_t row, WrongSum& s) {
       const float* r = w.row(row);
       whole(op, token, s, [&](std::int64_t c) { return double{r[c]}; });
       const std::int64_t kept =
           w.rows() / 16 * 16 == w.rows() ? w.rows() - 16 : w.rows() / 16 * 16;
       if (row >= kept) s.sum = 0;
       return true;
     }},
    {"the other token's input is used", false,
     [](WeightReader& w, const Gemm& op, std::int64_t token, std::int64_t row, WrongSum& s) {
       if (op.x.shape[0] < 2) return false;
       const float* r = w.row(row);
       return whole(op, (token + 1) % op.x.shape[0], s,
                    [&](std::int64_t c) { return double{r[c]}; });
     }},
    {"sums are kept in F16", true,
     [](WeightReader& w, const Gemm& op, std::int64_t token, std::int64_t row, WrongSum& s) {
       const float* r = w.row(row);
       const float* x = input(op, token);
       float sum = 0;
       s.size = 0;
       for (std::int64_t c = 0; c < w.cols(); ++c) {
         sum = round_to_f16(static_cast<float>(double{sum} + double{x[c]} * r[c]));
         s.size += std::abs(double{x[c]} * r[c]);
       }
       s.sum = sum;
       return true;
     }},
};

}  // namespace

std::span<const GemmVariant> gemm_variants() { return kGemmVariants; }

const float* WeightReader::row(std::int64_t r) {
  if (row_ != r) {
    decoded_.resize(static_cast<std::size_t>(cols()));
    decode(weight_.dtype, weight_.row(r), cols(), decoded_.data());
    row_ = r;
  }
  return decoded_.data();
}

double WeightReader::flat(std::int64_t index) {
  if (!whole_.empty()) return whole_[static_cast<std::size_t>(index)];
  const std::int64_t n = info(weight_.dtype).block_size;
  if (block_ != index / n) {
    block_ = index / n;
    block_values_.resize(static_cast<std::size_t>(n));
    const std::int64_t row = index / cols();
    decode(weight_.dtype, weight_.row(row) + bytes_of(weight_.dtype, index % cols() / n * n), n,
           block_values_.data());
    n_decoded_ += n;
    if (n_decoded_ > weight_.size()) decode_whole();
  }
  return block_values_[static_cast<std::size_t>(index % n)];
}

void WeightReader::decode_whole() {
  whole_.resize(static_cast<std::size_t>(weight_.size()));
  for (std::int64_t r = 0; r < rows(); ++r) {
    decode(weight_.dtype, weight_.row(r), cols(), whole_.data() + r * cols());
  }
}

}  // namespace qwen::crosscheck
