// Advance (core/ops.h): ids = token, pos = row_pos, seq = row_seq, rows = 0, 1, ..., row_pos += 1.
// All tensors (n_rows) I32. One block; a thread moves every 256th row.
// Bytes: 32 per row; bound: the launch.
#include "backends/cuda/launch_kernel.h"
#include "backends/cuda/tile/reduce.cuh"

namespace qwen::cuda {
namespace {

constexpr int kThreads = 256;  // the largest step in one round

struct Task {
  std::int32_t* ids;
  std::int32_t* pos;
  std::int32_t* seq;
  std::int32_t* rows;
  std::int32_t* row_pos;
  const std::int32_t* token;
  const std::int32_t* row_seq;
  int n_rows;
};

__global__ void __launch_bounds__(kThreads) advance(Task task) {
  tile::let_next_start();
  tile::wait_for_inputs();
  for (int i = static_cast<int>(threadIdx.x); i < task.n_rows; i += kThreads) {
    const std::int32_t pos = task.row_pos[i];
    task.ids[i] = task.token[i];
    task.pos[i] = pos;
    task.seq[i] = task.row_seq[i];
    task.rows[i] = i;
    task.row_pos[i] = pos + 1;
  }
}

}  // namespace

void launch(const Advance& op, const Launch& on) {
  const auto n_rows = static_cast<int>(op.ids.size());
  if (n_rows == 0) return;
  const Task task{op.ids.i32(),     op.pos.i32(),   op.seq.i32(),     op.rows.i32(),
                  op.row_pos.i32(), op.token.i32(), op.row_seq.i32(), n_rows};
  launch_kernel(advance, Start::kMayOverlap, 1, kThreads, 0, on, task);
}

}  // namespace qwen::cuda
