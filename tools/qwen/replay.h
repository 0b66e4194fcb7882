// qwen cross-check --replay: a repro bundle judged again, and its op run again.
#pragma once

#include <string>

#include "tools/qwen/options.h"

namespace qwen::cli {

// Judges what the bundle in `folder` holds by the reference, and says so on standard output; then
// runs the op on the device that `options` name, with "auto" on one of the kind that the bundle is
// from, if there is one. Returns whether the output that was kept is wrong. Throws Error
// (Exit::kModel) for a damaged bundle.
bool replay_bundle(const std::string& folder, const ModelOptions& options, Console& console);

}  // namespace qwen::cli
