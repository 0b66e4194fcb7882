// The bar of a loading file.
#pragma once

#include "loader/gguf.h"
#include "tools/qwen/console.h"

namespace qwen::cli {

// Has the file read into memory. On a terminal this waits for the bytes and shows how many are
// there, at most ten times a second; else it only asks for them. A file that the system has in
// memory already costs no time.
void show_loading(const Gguf& gguf, Console& console);

}  // namespace qwen::cli
