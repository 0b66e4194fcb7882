#include "tools/qwen/kept_bundles.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "tools/qwen/divergence_text.h"

namespace qwen::cli {

using crosscheck::Bundle;
using crosscheck::Divergence;

KeptBundles::KeptBundles(std::string dir, Backend& reference)
    : dir_(std::move(dir)), reference_(reference) {
  if (dir_.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(dir_, error);
  if (error) {
    throw Error({.exit = Exit::kUsage,
                 .code = "cannot_write",
                 .message = "--bundle " + dir_ + ": " + error.message(),
                 .hint = "name a folder that can be made or written to"});
  }
}

crosscheck::KeepEvidence KeptBundles::keep() {
  if (dir_.empty()) return {};
  return [this](const crosscheck::Evidence& evidence) {
    std::optional<Bundle> bundle = cut(evidence, reference_);
    if (bundle) bundles_.push_back(std::move(*bundle));
  };
}

void KeptBundles::write(const crosscheck::ShadowResult& shadow, const Origin& origin) {
  for (Bundle& bundle : bundles_) {
    Divergence& own = bundle.divergence;
    const auto reported = std::find_if(
        shadow.divergences.begin(), shadow.divergences.end(), [&](const Divergence& d) {
          return d.tap.name == own.tap.name && d.tap.layer == own.tap.layer &&
                 d.output == own.output && d.token == own.token && d.seq == own.seq;
        });
    if (reported != shadow.divergences.end()) own = *reported;  // with its cause
    const std::string folder = dir_ + "/" + bundle_name(own);
    write_bundle(folder, bundle, origin);
    folders_.push_back(folder);
  }
}

std::string KeptBundles::text(const crosscheck::ShadowResult& shadow) const {
  if (shadow.divergences.empty()) return "";
  if (dir_.empty()) return "     repro: --bundle DIR keeps each failed op as a folder\n";
  if (folders_.empty()) return "     repro: none, the failed ops are too large\n";
  return "     repro: qwen cross-check --replay " + folders_.front() +
         (folders_.size() > 1 ? "   (" + std::to_string(folders_.size()) + " folders)" : "") + "\n";
}

}  // namespace qwen::cli
