#include "core/crosscheck/mishaps.h"

#include <algorithm>
#include <utility>

#include "core/crosscheck/scratch.h"

namespace qwen::crosscheck {
namespace {

// The operand that a mishap reads too early or from under the output, or the positions.
std::string_view input_of(Mishap mishap, const Op& op) {
  if (mishap == Mishap::kOldPosition) return "pos";
  if (std::holds_alternative<Sample>(op)) return "logits";
  if (std::holds_alternative<Attention>(op)) return "q";
  if (std::holds_alternative<SiluMul>(op)) return "gate";
  return "x";
}

Tensor operand_of(const Op& op, std::string_view name) {
  Op copy = op;
  for (const Operand& operand : operands(copy)) {
    if (operand.name == name) return *operand.tensor;
  }
  return {};
}

// The op's output with a row for each token; of a KvWrite its keys.
Tensor rows_of(const Op& op) {
  if (const auto* write = std::get_if<KvWrite>(&op)) return write->k;
  return output_of(op);
}

std::vector<std::byte> bytes_of(Backend& backend, const Tensor& tensor) {
  std::vector<std::byte> bytes(tensor.bytes());
  backend.read(bytes.data(), tensor);
  return bytes;
}

}  // namespace

bool MishapRunner::run(Mishap mishap, const Op& op, const Tap& tap) {
  const Tensor out = rows_of(op);
  Before& before = before_[{tap.name, tap.layer, out.shape[0]}];
  if (before.out == nullptr) before.out = out.data;
  switch (mishap) {
    case Mishap::kRace:
      return race(op, tap);
    case Mishap::kOverlap:
      return overlap(op, tap, before);
    case Mishap::kStaleInput:
    case Mishap::kOldPosition:
      return run_on_old(op, tap, input_of(mishap, op), before);
    case Mishap::kNotLaunched:
      if (out.shape[0] > kMostRows) return true;
      break;
    case Mishap::kMixedTokens:
      return mixed_tokens(op, tap);
    case Mishap::kNone:
      break;
  }
  backend_(op, tap);
  return false;
}

bool MishapRunner::race(const Op& op, const Tap& tap) {
  backend_(op, tap);
  const Tensor out = rows_of(op);
  std::vector<float> values(static_cast<std::size_t>(out.size()));
  backend_.read(values.data(), out);
  for (std::size_t i = n_races_++ % 7; i < values.size(); i += 97) values[i] = 1.5f * values[i] + 1;
  backend_.write(out, values.data());
  return true;
}

bool MishapRunner::overlap(const Op& op, const Tap& tap, const Before& before) {
  backend_(op, tap);
  const Tensor out = rows_of(op);
  if (out.data != before.out) return false;
  const std::vector<std::byte> first = bytes_of(backend_, out);
  const std::string_view name = input_of(Mishap::kOverlap, op);
  std::vector<std::byte> input = bytes_of(backend_, operand_of(op, name));
  std::copy_n(first.begin(), std::min(first.size(), input.size()) / 8 * 4, input.begin());
  run_with(op, tap, name, input);
  return true;
}

bool MishapRunner::run_on_old(const Op& op, const Tap& tap, std::string_view name, Before& before) {
  std::vector<std::byte> input = bytes_of(backend_, operand_of(op, name));
  // In the run's own memory only; but positions that came too late do so wherever the op runs.
  if (rows_of(op).data != before.out) {
    const bool late = name == "pos" && !before.older.empty();
    if (late) run_with(op, tap, name, before.older);
    if (!late) backend_(op, tap);
    return late;
  }
  before.older = std::exchange(before.input, std::move(input));
  if (before.older.empty() || before.older == before.input) {
    backend_(op, tap);
    return false;
  }
  run_with(op, tap, name, before.older);
  return true;
}

bool MishapRunner::mixed_tokens(const Op& op, const Tap& tap) {
  backend_(op, tap);
  const Tensor out = rows_of(op);
  if (out.shape[0] < 2) return false;
  std::vector<std::byte> rows = bytes_of(backend_, out);
  const auto row = static_cast<std::ptrdiff_t>(rows.size()) / out.shape[0];
  std::swap_ranges(rows.begin(), rows.begin() + row, rows.begin() + row);
  backend_.write(out, rows.data());
  return true;
}

void MishapRunner::run_with(const Op& op, const Tap& tap, std::string_view name,
                            const std::vector<std::byte>& bytes) {
  Op changed = op;
  Buffer memory = backend_.allocate(bytes.size());
  for (const Operand& operand : operands(changed)) {
    if (operand.name != name) continue;
    operand.tensor->data = memory.get();
    backend_.write(*operand.tensor, bytes.data());
  }
  backend_(changed, tap);
  // The memory must outlast what is queued.
  bytes_of(backend_, rows_of(op));
}

}  // namespace qwen::crosscheck
