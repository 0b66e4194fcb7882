#include "core/crosscheck/attest_file.h"

#include <algorithm>
#include <cmath>

namespace qwen::crosscheck {
namespace {

class FileAttester {
 public:
  explicit FileAttester(const ModelFile& file)
      : file_(file), prefix_(file.string("general.architecture") + ".") {}

  void operator()(const RmsNorm& op, const Tap& tap) {
    check(tap, "eps", real("attention.layer_norm_rms_epsilon"), op.eps);
  }
  // Inverse frequencies base^(-2i / head_dim). (Su et al. 2021, arXiv:2104.09864)
  void operator()(const Rope& op, const Tap& tap) {
    const double base = real("rope.freq_base");
    const std::int64_t n = op.inv_freq.size();
    for (std::int64_t i = 0; i < n; ++i) {
      const double want = std::pow(base, -static_cast<double>(i) / static_cast<double>(n));
      check(tap, "inv_freq", want, op.inv_freq.f32()[i]);
    }
    check(tap, "head_dim", head_dim(), static_cast<double>(op.x.shape[2]));
  }
  void operator()(const KvWrite& op, const Tap& tap) {
    check(tap, "n_kv_heads", whole("attention.head_count_kv"), static_cast<double>(op.k.shape[1]));
  }
  void operator()(const Attention& op, const Tap& tap) {
    check(tap, "n_heads", whole("attention.head_count"), static_cast<double>(op.q.shape[1]));
    check(tap, "scale", 1 / std::sqrt(head_dim()), op.scale);
  }
  void operator()(const SiluMul& op, const Tap& tap) {
    check(tap, "ffn_dim", whole("feed_forward_length"), static_cast<double>(op.out.shape[1]));
  }
  void operator()(const Add& op, const Tap& tap) {
    check(tap, "dim", whole("embedding_length"), static_cast<double>(op.x.shape[1]));
  }
  template <class T>
  void operator()(const T& /*op*/, const Tap& /*tap*/) {}

  std::vector<Finding> findings;

 private:
  double whole(const std::string& key) const {
    return static_cast<double>(file_.u32(prefix_ + key));
  }
  double real(const std::string& key) const { return double{file_.f32(prefix_ + key)}; }
  double head_dim() const {
    const auto given = file_.find_u32(prefix_ + "attention.key_length");
    return given ? static_cast<double>(*given)
                 : whole("embedding_length") / whole("attention.head_count");
  }

  // Equal but for the rounding of `got` to FP32.
  void check(const Tap& tap, std::string_view what, double want, double got) {
    if (std::abs(got - want) <= 0x1p-23 * std::abs(want)) return;
    const bool known = std::any_of(findings.begin(), findings.end(),
                                   [&](const Finding& f) { return f.operand == what; });
    if (known) return;
    findings.push_back({.tap = tap,
                        .operand = std::string(what),
                        .expected = number(want) + " by the file's metadata",
                        .got = number(got),
                        .is_number = true,
                        .cause = "the metadata are misread"});
  }

  const ModelFile& file_;
  std::string prefix_;
};

}  // namespace

std::vector<Finding> attest_file(const ModelFile& file, const Plan& plan) {
  FileAttester attester(file);
  for (const Node& node : plan) {
    std::visit([&](const auto& op) { attester(op, node.tap); }, node.op);
  }
  return std::move(attester.findings);
}

}  // namespace qwen::crosscheck
