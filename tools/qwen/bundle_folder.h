// A repro bundle (core/crosscheck/bundle.h) as a folder: contract.json, which says what all is, a
// .npy file for each tensor, and verify.py, which judges it without this program.
#pragma once

#include <string>

#include "core/crosscheck/bundle.h"
#include "tools/qwen/console.h"

namespace qwen::cli {

// "xc-0012-00-attn_out": token, layer (if it is of one), tap.
std::string bundle_name(const crosscheck::Divergence& divergence);

// Where a bundle comes from, for people: the model, the device and the oracle as they describe
// themselves.
struct Origin {
  Json model = nullptr;
  Json device = {{"kind", ""}};
  std::string oracle = {};
};

// Makes the folder if it is not there; files of that name are replaced. Throws Error (code
// "cannot_write").
void write_bundle(const std::string& folder, const crosscheck::Bundle& bundle,
                  const Origin& origin);

// A bundle as it was written. What the reference said is that of then: judge_by() renews it.
struct StoredBundle {
  crosscheck::Bundle bundle;
  Origin origin;
};
// Throws Error (Exit::kModel, code "damaged_bundle" or "damaged_npy") if a file is missing or does
// not fit the others.
StoredBundle read_bundle(const std::string& folder);

// judge_by() with the reference, of a bundle that was read from `folder`. Throws Error
// (Exit::kModel, code "damaged_bundle") if its tensors are no valid op.
void judge_kept(const std::string& folder, Backend& reference, crosscheck::Bundle& bundle);

}  // namespace qwen::cli
