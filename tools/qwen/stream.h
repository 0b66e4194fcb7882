// How fast a backend's memory can be read, by the backend's own ops: the limit of decoding where
// the host cannot measure it (bandwidth.h).
#pragma once

#include <cstddef>

#include "core/backend.h"

namespace qwen::cli {

// Bytes per second, the best of several runs of the two ops that stream: a matrix-vector product
// whose F16 weight of 1 GiB is far larger than any cache, which reads every byte of it once, and an
// addition of tensors of that size in all. `max_bytes` bounds the memory used; 0 if that is too
// little. The ops come as a compiled plan, so that starting them costs nothing between them.
double measure_stream_limit(Backend& backend, std::size_t max_bytes);

}  // namespace qwen::cli
