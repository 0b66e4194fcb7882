// What the CUDA backend decides on the host alone: which ops of a plan are fused, and how weights
// are laid out. Needs no GPU.
#include "backends/cuda/fuse/fuse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <numeric>

#include "backends/cpu/cpu_backend.h"
#include "backends/cuda/planar.h"
#include "core/blocks.h"
#include "tests/model_runs.h"

namespace qwen::testing {
namespace {

using cuda::Group;
using cuda::Pattern;

int count(const std::vector<Group>& groups, Pattern pattern) {
  return static_cast<int>(std::count_if(groups.begin(), groups.end(),
                                        [&](const Group& g) { return g.pattern == pattern; }));
}

bool same(const Tensor& a, const Tensor& b) { return a.data == b.data && a.bytes() == b.bytes(); }

class FuseTest : public ::testing::TestWithParam<TinyModel> {
 protected:
  FuseTest()
      : cpu_(1, ""),
        placed_(GetParam(), cpu_),
        session_(*placed_.model, cpu_, {.ctx = 64, .n_seqs = 3, .max_step_rows = 3}) {}

  // A prefill of three ragged sequences.
  Plan prefill_plan() {
    Plan plan;
    std::vector<TokenInput> tokens;
    for (std::int32_t seq = 0; seq < 3; ++seq) {
      const Ids ids = random_text(4 + 3 * seq, 70 + seq);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        tokens.push_back({ids[i], static_cast<std::int32_t>(i), seq, i + 1 == ids.size()});
      }
    }
    const RecordingScope recording(cpu_, plan);
    session_.step(tokens);
    return plan;
  }

  // The decode step that follows on it.
  Plan decode_plan() {
    cpu_.replay(prefill_plan());
    session_.queue_sample();
    Plan plan;
    const RecordingScope recording(cpu_, plan);
    session_.queue_decode();
    return plan;
  }

  // A tensor like `t` of its own.
  Tensor fresh(const Tensor& t) {
    memory_.emplace_back(t.bytes());
    return Tensor(memory_.back().data(), t.dtype, t.dims());
  }

  static std::vector<float> logits_of(const Plan& plan) {
    const auto last = std::find_if(plan.rbegin(), plan.rend(), [](const Node& node) {
      return std::holds_alternative<Gemm>(node.op);
    });
    const Tensor out = std::get<Gemm>(last->op).out;
    return {out.f32(), out.f32() + out.size()};
  }

  // No group of that pattern begins at `first`.
  static bool is_fused(const Plan& plan, const Group& group) {
    const std::vector<Group> groups = cuda::fuse(plan);
    return std::any_of(groups.begin(), groups.end(), [&](const Group& g) {
      return g.first == group.first && g.pattern == group.pattern;
    });
  }

  std::int64_t n_layers() const { return placed_.model->shape().n_layers; }

  CpuBackend cpu_;
  PlacedModel placed_;
  Session session_;
  std::deque<std::vector<std::byte>> memory_;
};

TEST_P(FuseTest, FindsThePatternsOfEveryLayer) {
  for (const Plan& plan : {prefill_plan(), decode_plan()}) {
    const std::vector<Group> groups = cuda::fuse(plan);
    std::size_t next = 0;
    for (const Group& group : groups) {  // in order, each node in one of them
      EXPECT_EQ(group.first, next);
      EXPECT_GE(group.count, 1u);
      next = group.first + group.count;
    }
    EXPECT_EQ(next, plan.size());
    const auto n = static_cast<int>(n_layers());
    EXPECT_EQ(count(groups, Pattern::kNormQkv), n);
    EXPECT_EQ(count(groups, Pattern::kProjectAdd), n);
    EXPECT_EQ(count(groups, Pattern::kFeedForward), n);
    EXPECT_EQ(count(groups, Pattern::kNormProject), 1);
    for (const Group& group : groups) {
      EXPECT_TRUE(group.count == 1 || group.pattern != Pattern::kSingle);
      EXPECT_EQ(cuda::elided(plan, group).empty(), group.pattern == Pattern::kSingle);
    }
  }
}

TEST_P(FuseTest, NobodyReadsWhatAGroupDoesNotStore) {
  for (const bool decode : {false, true}) {
    const Plan plan = decode ? decode_plan() : prefill_plan();
    // The state that a decode step goes on from.
    std::vector<std::int32_t> row_pos;
    const auto* advance = std::get_if<Advance>(&plan.front().op);
    ASSERT_EQ(advance != nullptr, decode);
    const auto restart = [&] {
      if (!decode) return;
      if (row_pos.empty()) {
        row_pos.assign(advance->row_pos.i32(), advance->row_pos.i32() + 3);
      } else {
        cpu_.write(advance->row_pos, row_pos.data());
      }
      const std::vector<std::int32_t> token = {1, 2, 3};
      cpu_.write(advance->token, token.data());
    };
    restart();
    cpu_.replay(plan);
    const std::vector<float> want = logits_of(plan);
    ASSERT_TRUE(std::all_of(want.begin(), want.end(), [](float v) { return std::isfinite(v); }));

    restart();
    for (const Group& group : cuda::fuse(plan)) {
      for (std::size_t n = group.first; n < group.first + group.count; ++n) {
        cpu_(plan[n].op, plan[n].tap);
      }
      for (const Tensor& t : cuda::elided(plan, group)) {
        std::fill_n(t.f32(), t.size(), std::numeric_limits<float>::quiet_NaN());
      }
    }
    const std::vector<float> got = logits_of(plan);
    EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0)
        << (decode ? "decode" : "prefill");
  }
}

// Every operand through which the ops of a group hand on what is not stored, bound to another
// tensor: the ops no longer are what the fused kernel computes.
TEST_P(FuseTest, OtherDataFlowIsNotFused) {
  const Plan plan = prefill_plan();
  int tried = 0;
  for (const Group& group : cuda::fuse(plan)) {
    if (group.pattern == Pattern::kSingle) continue;
    const std::vector<Tensor> gone = cuda::elided(plan, group);
    for (std::size_t n = group.first; n < group.first + group.count; ++n) {
      Op original = plan[n].op;
      const Operands all = operands(original);
      for (std::size_t o = 0; o < all.size(); ++o) {
        const Tensor t = *all[o].tensor;
        if (std::none_of(gone.begin(), gone.end(), [&](const Tensor& g) { return same(g, t); })) {
          continue;
        }
        Plan other = plan;
        *operands(other[n].op)[o].tensor = fresh(t);
        EXPECT_FALSE(is_fused(other, group))
            << name(plan[n].op) << " " << plan[n].tap.name << ": other " << all[o].name;
        ++tried;
      }
    }
  }
  EXPECT_EQ(tried, 24 * n_layers() + 2);
}

// The conditions on tensors that a group reads or stores.
TEST_P(FuseTest, OtherOperandsAreNotFused) {
  const Plan plan = prefill_plan();
  const auto refused = [&](Pattern pattern, std::size_t node, std::string_view operand) {
    for (const Group& group : cuda::fuse(plan)) {
      if (group.pattern != pattern) continue;
      Plan other = plan;
      bool found = false;
      for (const Operand& o : operands(other[group.first + node].op)) {
        if (o.name != operand) continue;
        *o.tensor = fresh(*o.tensor);
        found = true;
      }
      EXPECT_TRUE(found) << operand;
      EXPECT_FALSE(is_fused(other, group)) << name(plan[group.first + node].op) << " " << operand;
      return;
    }
    ADD_FAILURE() << "no such group";
  };
  refused(Pattern::kNormQkv, 1, "out");  // queries: stored, but handed on within the group
  refused(Pattern::kNormQkv, 4, "x");
  refused(Pattern::kNormQkv, 7, "x");
  refused(Pattern::kNormQkv, 7, "pos");  // one position for queries, keys and the cache
  refused(Pattern::kNormQkv, 8, "pos");
  refused(Pattern::kNormQkv, 9, "pos");
  refused(Pattern::kNormQkv, 7, "inv_freq");
  refused(Pattern::kNormQkv, 8, "inv_freq");
  refused(Pattern::kFeedForward, 0, "x");  // the residual stream is read and added to
  refused(Pattern::kFeedForward, 5, "x");
}

TEST_P(FuseTest, WhatIsReadLaterIsStored) {
  const Plan plan = prefill_plan();
  for (const Group& group : cuda::fuse(plan)) {
    for (const Tensor& gone : cuda::elided(plan, group)) {
      const auto behind = static_cast<std::ptrdiff_t>(group.first + group.count);
      const Tensor flat = gone.reshape({1, gone.size()});
      // Read as it is, in part, and after a part of it was written.
      const Tensor part = flat.reshape({gone.size(), 1}).slice(1, 2);
      const Node reads{Add{fresh(flat), flat}, {}};
      const Node reads_part{Add{fresh(part), part}, {}};
      const Node writes{SiluMul{flat, fresh(flat), fresh(flat)}, {}};
      const Node writes_part{SiluMul{part, fresh(part), fresh(part)}, {}};
      const auto with = [&](const std::vector<Node>& nodes) {
        Plan other = plan;
        other.insert(other.begin() + behind, nodes.begin(), nodes.end());
        return other;
      };
      EXPECT_FALSE(is_fused(with({reads}), group));
      EXPECT_FALSE(is_fused(with({reads_part}), group));
      EXPECT_FALSE(is_fused(with({writes_part, reads}), group));
      EXPECT_TRUE(is_fused(with({writes, reads}), group)) << "written anew before it is read";
    }
    if (group.first > 25) break;  // the first layer's groups stand for all
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, FuseTest, ::testing::ValuesIn(tiny_models()),
                         [](const auto& test) { return test.param.name; });

TEST(Planes, FieldsCoverABlockOnce) {
  int formats = 0;
  for (const DTypeInfo& type : dtype_table()) {
    const auto fields = cuda::plane_fields(type.dtype);
    const bool blocks = type.decode_block != nullptr && type.block_size > 1;
    EXPECT_EQ(fields.empty(), !blocks) << type.name;
    if (fields.empty()) continue;
    ++formats;
    std::vector<int> covered(static_cast<std::size_t>(type.block_bytes));
    for (const cuda::PlaneField& field : fields) {
      ASSERT_GE(field.offset, 0) << type.name;
      ASSERT_LE(field.offset + field.bytes, type.block_bytes) << type.name;
      for (int i = 0; i < field.bytes; ++i) ++covered[field.offset + i];
    }
    EXPECT_EQ(covered, std::vector<int>(covered.size(), 1)) << type.name;
  }
  EXPECT_GE(formats, 12);
}

// Plane f begins at n_blocks * (bytes of the fields before it): aligned for any number of blocks if
// each of those is a multiple of what f's loads need, the largest power of two in its size, at most
// 16.
TEST(Planes, EveryPlaneIsAlignedForAnyNumberOfBlocks) {
  for (const DTypeInfo& type : dtype_table()) {
    int before = 0;
    for (const cuda::PlaneField& field : cuda::plane_fields(type.dtype)) {
      EXPECT_EQ(before % std::gcd(field.bytes, 16), 0)
          << type.name << ", field at " << field.offset;
      before += field.bytes;
    }
  }
}

}  // namespace
}  // namespace qwen::testing
