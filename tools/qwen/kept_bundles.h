// The repro bundles of one cross-check: cut while it runs, written when the causes are known.
#pragma once

#include <string>
#include <vector>

#include "core/backend.h"
#include "tools/qwen/bundle_folder.h"

namespace qwen::cli {

class KeptBundles {
 public:
  // They will be folders in `dir`; none are kept if it is empty. `reference` must outlive it.
  // Throws Error (Exit::kUsage, code "cannot_write") if `dir` cannot be made.
  KeptBundles(std::string dir, Backend& reference);

  // For CrossCheckOptions.
  crosscheck::KeepEvidence keep();
  // Throws Error (code "cannot_write").
  void write(const crosscheck::ShadowResult& shadow, const Origin& origin);

  const std::vector<std::string>& folders() const { return folders_; }
  // The line of a report: the first folder and how to replay it, or how to get one. Empty if
  // nothing diverged.
  std::string text(const crosscheck::ShadowResult& shadow) const;

 private:
  std::string dir_;
  Backend& reference_;
  std::vector<crosscheck::Bundle> bundles_;
  std::vector<std::string> folders_;  // as written
};

}  // namespace qwen::cli
