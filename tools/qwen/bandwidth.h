// How fast this machine's memory can be read: the limit of decoding.
#pragma once

#include <cstddef>

namespace qwen::cli {

// Bytes per second that `threads` threads read together, the best of several passes over a buffer
// far larger than the caches. `max_bytes` bounds the buffer. 0 if there is no memory for one.
double measure_read_bandwidth(int threads, std::size_t max_bytes);

}  // namespace qwen::cli
