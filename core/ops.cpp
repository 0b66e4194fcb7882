#include "core/ops.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/kv_layout.h"

namespace qwen {
namespace {

constexpr Access kIn = Access::kRead;
constexpr Access kConst = Access::kConstant;
constexpr Access kOut = Access::kWrite;
constexpr Access kInOut = Access::kReadWrite;

// Throws the first complaint about one op. What it says is put together only then: every op that
// runs is checked.
class Checker {
 public:
  explicit Checker(std::string_view op) : op_(op) {}

  [[noreturn]] void complain(const std::string& what) const {
    throw Error(
        {.exit = Exit::kFailed, .code = "invalid_op", .message = std::string(op_) + ": " + what});
  }
  void require(bool holds, std::string_view what) const {
    if (!holds) complain(std::string(what));
  }
  void f32(const Tensor& t, std::string_view what) const { type(t, DType::kF32, what); }
  void i32(const Tensor& t, std::string_view what) const { type(t, DType::kI32, what); }
  void weight(const Tensor& t, std::string_view what) const {
    if (info(t.dtype).decode_block == nullptr) complain(std::string(what) + " has no float type");
  }
  void shape(const Tensor& t, std::initializer_list<std::int64_t> dims,
             std::string_view what) const {
    if (std::equal(dims.begin(), dims.end(), t.dims().begin(), t.dims().end())) return;
    complain(what, t, shape_string({dims.begin(), dims.size()}));
  }
  void rank(const Tensor& t, int n, std::string_view what) const {
    if (t.rank != n) complain(what, t, "rank " + std::to_string(n));
  }

 private:
  void type(const Tensor& t, DType want, std::string_view what) const {
    if (t.dtype != want) complain(what, t, std::string(info(want).name));
  }
  [[noreturn]] void complain(std::string_view what, const Tensor& t,
                             const std::string& expected) const {
    complain(std::string(what) + " is " + to_string(t) + ", expected " + expected);
  }

  std::string_view op_;
};

void check(const Checker& c, const Embed& op) {
  c.rank(op.out, 2, "out");
  c.f32(op.out, "out");
  c.weight(op.table, "table");
  c.rank(op.table, 2, "table");
  c.i32(op.ids, "ids");
  c.shape(op.ids, {op.out.shape[0]}, "ids");
  c.require(op.table.shape[1] == op.out.shape[1], "table and out differ in dim");
}

void check(const Checker& c, const RmsNorm& op) {
  c.rank(op.out, 2, "out");
  c.f32(op.out, "out");
  c.f32(op.x, "x");
  c.f32(op.weight, "weight");
  c.shape(op.x, {op.out.shape[0], op.out.shape[1]}, "x");
  c.shape(op.weight, {op.out.shape[1]}, "weight");
  c.require(op.eps > 0, "eps is not positive");
}

void check(const Checker& c, const Gemm& op) {
  c.rank(op.out, 2, "out");
  c.rank(op.x, 2, "x");
  c.rank(op.weight, 2, "weight");
  c.f32(op.out, "out");
  c.f32(op.x, "x");
  c.weight(op.weight, "weight");
  c.shape(op.weight, {op.out.shape[1], op.x.shape[1]}, "weight");
  c.shape(op.out, {op.x.shape[0], op.weight.shape[0]}, "out");
}

void check(const Checker& c, const AddBias& op) {
  c.rank(op.x, 2, "x");
  c.f32(op.x, "x");
  c.f32(op.bias, "bias");
  c.shape(op.bias, {op.x.shape[1]}, "bias");
}

void check(const Checker& c, const Rope& op) {
  c.rank(op.x, 3, "x");
  c.f32(op.x, "x");
  c.i32(op.pos, "pos");
  c.f32(op.inv_freq, "inv_freq");
  c.shape(op.pos, {op.x.shape[0]}, "pos");
  c.require(op.x.shape[2] % 2 == 0, "head_dim is odd");
  c.shape(op.inv_freq, {op.x.shape[2] / 2}, "inv_freq");
}

void check_cache(const Checker& c, const Tensor& k_cache, const Tensor& v_cache, const Tensor& pos,
                 const Tensor& seq, const Tensor& pages, std::int64_t n_tokens) {
  c.rank(k_cache, 4, "k_cache");
  c.require(k_cache.dtype == DType::kF32 || k_cache.dtype == DType::kF16,
            "k_cache is neither F32 nor F16");
  c.require(k_cache.shape[2] % kPageTokensMultiple == 0, "page_tokens is no multiple of 16");
  c.require(v_cache.dtype == k_cache.dtype, "k_cache and v_cache differ in type");
  c.require(v_cache.shape == k_cache.shape, "k_cache and v_cache differ in shape");
  c.i32(pos, "pos");
  c.i32(seq, "seq");
  c.i32(pages, "pages");
  c.shape(pos, {n_tokens}, "pos");
  c.shape(seq, {n_tokens}, "seq");
  c.rank(pages, 2, "pages");
}

void check(const Checker& c, const KvWrite& op) {
  c.rank(op.k, 3, "k");
  c.f32(op.k, "k");
  c.f32(op.v, "v");
  c.require(op.v.rank == 3 && op.v.shape == op.k.shape, "k and v differ in shape");
  c.f32(op.k_center, "k_center");
  c.shape(op.k_center, {op.k.shape[1], op.k.shape[2]}, "k_center");
  check_cache(c, op.k_cache, op.v_cache, op.pos, op.seq, op.pages, op.k.shape[0]);
  c.require(op.k_cache.shape[1] == op.k.shape[1], "the cache has another n_kv_heads than k");
  c.require(op.k_cache.shape[3] == op.k.shape[2], "the cache has another head_dim than k");
}

void check(const Checker& c, const Attention& op) {
  c.rank(op.q, 3, "q");
  c.f32(op.q, "q");
  c.f32(op.out, "out");
  c.f32(op.lse, "lse");
  c.shape(op.out, {op.q.shape[0], op.q.shape[1], op.q.shape[2]}, "out");
  c.shape(op.lse, {op.q.shape[0], op.q.shape[1]}, "lse");
  check_cache(c, op.k_cache, op.v_cache, op.pos, op.seq, op.pages, op.q.shape[0]);
  c.require(op.q.shape[1] % op.k_cache.shape[1] == 0, "n_heads is no multiple of n_kv_heads");
  c.require(op.k_cache.shape[3] == op.q.shape[2], "the cache has another head_dim than q");
  c.require(op.scale > 0, "scale is not positive");
}

void check(const Checker& c, const SiluMul& op) {
  c.rank(op.out, 2, "out");
  for (const Tensor& t : {op.out, op.gate, op.up}) c.f32(t, "an operand");
  c.shape(op.gate, {op.out.shape[0], op.out.shape[1]}, "gate");
  c.shape(op.up, {op.out.shape[0], op.out.shape[1]}, "up");
}

void check(const Checker& c, const Add& op) {
  c.rank(op.x, 2, "x");
  c.f32(op.x, "x");
  c.f32(op.y, "y");
  c.shape(op.y, {op.x.shape[0], op.x.shape[1]}, "y");
}

void check(const Checker& c, const TakeRows& op) {
  c.rank(op.out, 2, "out");
  c.rank(op.x, 2, "x");
  c.f32(op.out, "out");
  c.f32(op.x, "x");
  c.i32(op.rows, "rows");
  c.shape(op.rows, {op.out.shape[0]}, "rows");
  c.require(op.x.shape[1] == op.out.shape[1], "x and out differ in dim");
}

void check(const Checker& c, const Sample& op) {
  c.rank(op.logits, 2, "logits");
  c.f32(op.logits, "logits");
  for (const Tensor& t : {op.out, op.seq, op.pos}) {
    c.i32(t, "an operand");
    c.shape(t, {op.logits.shape[0]}, "an operand");
  }
  c.f32(op.logit, "logit");
  c.shape(op.logit, {op.logits.shape[0]}, "logit");
  c.rank(op.params, 2, "params");
  c.i32(op.params, "params");
  c.shape(op.params, {op.params.shape[0], 8}, "params");
  c.require(op.seen.dtype == DType::kI8, "seen is not I8");
  c.shape(op.seen, {op.params.shape[0], op.logits.shape[1]}, "seen");
}

void check(const Checker& c, const Advance& op) {
  for (const Tensor& t : {op.ids, op.pos, op.seq, op.rows, op.row_pos, op.token, op.row_seq}) {
    c.i32(t, "an operand");
    c.shape(t, {op.ids.size()}, "an operand");
  }
}

}  // namespace

Operands Embed::io() {
  return {{"out", &out, kOut}, {"table", &table, kConst}, {"ids", &ids, kIn}};
}
Operands RmsNorm::io() {
  return {{"out", &out, kOut}, {"x", &x, kIn}, {"weight", &weight, kConst}};
}
Operands Gemm::io() { return {{"out", &out, kOut}, {"x", &x, kIn}, {"weight", &weight, kConst}}; }
Operands AddBias::io() { return {{"x", &x, kInOut}, {"bias", &bias, kConst}}; }
Operands Rope::io() {
  return {{"x", &x, kInOut}, {"pos", &pos, kIn}, {"inv_freq", &inv_freq, kConst}};
}
Operands KvWrite::io() {
  return {{"k_cache", &k_cache, kInOut},
          {"v_cache", &v_cache, kInOut},
          {"k", &k, kIn},
          {"v", &v, kIn},
          {"k_center", &k_center, kConst},
          {"pos", &pos, kIn},
          {"seq", &seq, kIn},
          {"pages", &pages, kIn}};
}
Operands Attention::io() {
  return {{"out", &out, kOut},        {"lse", &lse, kOut},        {"q", &q, kIn},
          {"k_cache", &k_cache, kIn}, {"v_cache", &v_cache, kIn}, {"pos", &pos, kIn},
          {"seq", &seq, kIn},         {"pages", &pages, kIn}};
}
Operands SiluMul::io() { return {{"out", &out, kOut}, {"gate", &gate, kIn}, {"up", &up, kIn}}; }
Operands Add::io() { return {{"x", &x, kInOut}, {"y", &y, kIn}}; }
Operands TakeRows::io() { return {{"out", &out, kOut}, {"x", &x, kIn}, {"rows", &rows, kIn}}; }
Operands Sample::io() {
  return {{"out", &out, kOut},      {"logit", &logit, kOut}, {"seen", &seen, kInOut},
          {"logits", &logits, kIn}, {"seq", &seq, kIn},      {"pos", &pos, kIn},
          {"params", &params, kIn}};
}
Operands Advance::io() {
  return {{"ids", &ids, kOut},       {"pos", &pos, kOut},           {"seq", &seq, kOut},
          {"rows", &rows, kOut},     {"row_pos", &row_pos, kInOut}, {"token", &token, kIn},
          {"row_seq", &row_seq, kIn}};
}

std::string_view name(const Op& op) {
  static constexpr std::array<std::string_view, std::variant_size_v<Op>> kNames = {
      "Embed",     "RmsNorm", "Gemm", "AddBias",  "Rope",   "KvWrite",
      "Attention", "SiluMul", "Add",  "TakeRows", "Sample", "Advance"};
  return kNames[op.index()];
}

Operands operands(Op& op) {
  return std::visit([](auto& o) { return o.io(); }, op);
}

void validate(const Op& op) {
  const Checker c(name(op));
  std::visit([&](const auto& o) { check(c, o); }, op);
  Op copy = op;
  const Operands all = operands(copy);
  for (const Operand& written : all) {
    if (!writes(written.access)) continue;
    for (const Operand& other : all) {
      if (&other == &written || !written.tensor->overlaps(*other.tensor)) continue;
      c.complain(std::string(written.name) + " overlaps " + std::string(other.name));
    }
  }
}

std::int64_t bytes(const Op& op, std::int64_t kv_len) {
  if (const auto* a = std::get_if<Attention>(&op)) {
    const std::int64_t row =
        a->k_cache.shape[1] * static_cast<std::int64_t>(a->k_cache.row_bytes());
    return static_cast<std::int64_t>(a->out.bytes() + a->q.bytes()) +
           2 * a->q.shape[0] * kv_len * row;
  }
  if (const auto* w = std::get_if<KvWrite>(&op)) {
    return static_cast<std::int64_t>(w->k.bytes() + w->v.bytes() + w->k_center.bytes()) +
           2 * static_cast<std::int64_t>(bytes_of(w->k_cache.dtype, w->k.size()));
  }
  if (const auto* e = std::get_if<Embed>(&op)) {
    return static_cast<std::int64_t>(e->out.bytes() + e->out.shape[0] * e->table.row_bytes());
  }
  Op copy = op;
  std::int64_t total = 0;
  for (const Operand& o : operands(copy)) {
    total +=
        static_cast<std::int64_t>(o.tensor->bytes()) * (o.access == Access::kReadWrite ? 2 : 1);
  }
  return total;
}

std::int64_t flops(const Op& op, std::int64_t kv_len) {
  struct Count {
    std::int64_t kv_len;
    std::int64_t operator()(const Embed&) const { return 0; }
    std::int64_t operator()(const RmsNorm& o) const { return 4 * o.out.size(); }
    std::int64_t operator()(const Gemm& o) const { return 2 * o.out.size() * o.x.cols(); }
    std::int64_t operator()(const AddBias& o) const { return o.x.size(); }
    std::int64_t operator()(const Rope& o) const { return 3 * o.x.size(); }
    std::int64_t operator()(const KvWrite& o) const { return o.k.size(); }
    std::int64_t operator()(const Attention& o) const { return 4 * o.q.size() * kv_len; }
    std::int64_t operator()(const SiluMul& o) const { return 5 * o.out.size(); }
    std::int64_t operator()(const Add& o) const { return o.x.size(); }
    std::int64_t operator()(const TakeRows&) const { return 0; }
    std::int64_t operator()(const Sample& o) const { return o.logits.size(); }
    std::int64_t operator()(const Advance&) const { return 0; }
  };
  return std::visit(Count{kv_len}, op);
}

}  // namespace qwen
