// The block decoders of every instruction set against the scalar definition, bit for bit. The first
// byte chooses the type; the rest is as many whole blocks as there are.
#include <bit>
#include <cmath>

#include "backends/cpu/kernels/kernels.h"
#include "core/blocks.h"
#include "core/dtype.h"
#include "tests/fuzz/target.h"

namespace qwen::fuzz {

void run(std::span<const std::byte> input) {
  const auto types = dtype_table();
  if (input.empty()) return;
  const DTypeInfo& type = types[static_cast<std::size_t>(input[0]) % types.size()];
  if (type.decode_block == nullptr) return;
  const std::size_t n_blocks = (input.size() - 1) / static_cast<std::size_t>(type.block_bytes);
  const Bytes blocks(input.begin() + 1,
                     input.begin() + 1 + static_cast<std::ptrdiff_t>(n_blocks) * type.block_bytes);
  const std::size_t n = n_blocks * static_cast<std::size_t>(type.block_size);
  if (n == 0) return;
  std::vector<float> expected(n);
  decode(type.dtype, blocks.data(), static_cast<std::int64_t>(n), expected.data());
  for (const cpu::Kernels* kernels : cpu::usable_kernels()) {
    const auto decoder = kernels->decode[static_cast<std::size_t>(type.dtype)];
    if (decoder == nullptr) continue;
    std::vector<float> got(n);
    decoder(blocks.data(), static_cast<std::int64_t>(n), got.data());
    for (std::size_t i = 0; i < n; ++i) {
      const bool same =
          std::bit_cast<std::uint32_t>(got[i]) == std::bit_cast<std::uint32_t>(expected[i]);
      require(same || (std::isnan(got[i]) && std::isnan(expected[i])), "decoders agree");
    }
  }
}

std::vector<Bytes> seeds() {
  std::vector<Bytes> all;
  Random random(5);
  for (std::size_t i = 0; i < dtype_table().size(); ++i) {
    Bytes seed(1, static_cast<std::byte>(i));
    for (std::int64_t k = 0; k < 2 * dtype_table()[i].block_bytes; ++k) {
      seed.push_back(static_cast<std::byte>(random.below(256)));
    }
    all.push_back(std::move(seed));
  }
  return all;
}

Bytes mutate(const Bytes& input, std::size_t max_bytes, Random& random) {
  return mutate_bytes(input, max_bytes, random);
}

}  // namespace qwen::fuzz
