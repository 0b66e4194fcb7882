// cross-check --against: a device beside a folder of another implementation's arrays.
#pragma once

#include <string>

#include "tools/qwen/console.h"
#include "tools/qwen/engine.h"

namespace qwen::cli {

inline constexpr const char* kAgainstHelp =
    "compare with the arrays of another implementation: DIR has files such as L03.q_proj.npy and "
    "embed.npy (C order, tokens first), and manifest.json or ids.json with {\"ids\": [...]} and, "
    "if "
    "its files have other names, {\"names\": {\"theirs\": \"L03.q_proj\", \"left_out\": null}}";

// Prints the report, or with `json` the document. Throws Error (Exit::kModel) for a folder that
// cannot be used, and Finished if the device differs or it cannot be told.
void run_against(Console& console, const OpenedModel& opened, Engine& engine,
                 const std::string& folder, bool json);

}  // namespace qwen::cli
