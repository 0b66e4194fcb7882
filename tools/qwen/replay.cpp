#include "tools/qwen/replay.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "backends/registry.h"
#include "tools/qwen/bundle_folder.h"
#include "tools/qwen/divergence_text.h"
#include "tools/qwen/engine.h"
#include "tools/qwen/format.h"

namespace qwen::cli {
namespace {

using crosscheck::Again;
using crosscheck::Bundle;
using crosscheck::Judgement;
using crosscheck::Rerun;
using crosscheck::Verdict;

bool any_failed(const std::vector<Judgement>& judgements) {
  return std::any_of(judgements.begin(), judgements.end(),
                     [](const Judgement& j) { return j.verdict == Verdict::kFail; });
}

std::string again_name(Again again) {
  return again == Again::kRight ? "right" : again == Again::kSame ? "same" : "other";
}

// Nothing if the one that the bundle is from cannot be used here, with a line that says so.
std::optional<OpenedDevice> device_for(const StoredBundle& stored, ModelOptions options,
                                       Console& console) {
  if (options.device.chosen() || options.gpu_layers.value == 0) {
    return open_device(options, console);
  }
  const std::string kind = stored.origin.device.at("kind");
  const std::vector<Device> all = devices();
  const auto same = std::find_if(all.begin(), all.end(),
                                 [&](const Device& device) { return device.kind == kind; });
  if (same != all.end() && same->usable) {
    options.device.value = kind;
    return open_device(options, console);
  }
  console.note("only the output that was kept is judged: " + kind + " cannot be used here" +
               (same == all.end() ? "" : " (" + same->why_not + ")"));
  return {};
}

std::string rerun_text(const Rerun& rerun, const std::string& device) {
  const std::string what = rerun.again == Again::kRight  ? "computes this part of the op right"
                           : rerun.again == Again::kSame ? "gives the same wrong values"
                                                         : "gives other wrong values";
  return "     now the " + device + " " + what + " (worst " + short_number(rerun.ratio) +
         " of the tolerance)\n";
}

// The divergence, with what the reference says of its worst element now.
crosscheck::Divergence judged_again(const Bundle& bundle) {
  crosscheck::Divergence d = bundle.divergence;
  d.element = judgement(bundle).first;
  return d;
}

std::string text(const Bundle& bundle, bool wrong, bool as_kept) {
  const crosscheck::Divergence& d = bundle.divergence;
  const Judgement& j = judgement(bundle);
  const std::string place_text =
      "token " + std::to_string(d.token) + place(d.tap) + " op " + value_name(d.tap, d.output);
  std::string out = wrong ? divergence_text(judged_again(bundle))
                          : "PASS " + place_text + ": what was kept is right, by " +
                                short_number(j.worst.ratio()) + " of the tolerance\n";
  out += "     of this output " + thousands(j.n_elements) + " elements were kept, " +
         thousands(j.n_failed) + " of them are wrong" +
         (as_kept ? ", as they were then\n" : "; then it was another verdict\n");
  return out;
}

}  // namespace

bool replay_bundle(const std::string& folder, const ModelOptions& options, Console& console) {
  StoredBundle stored = read_bundle(folder);
  Bundle& bundle = stored.bundle;
  const std::vector<Judgement> then = bundle.judgements;
  const auto reference = make_backend("ref", {});
  judge_kept(folder, *reference, bundle);
  const bool wrong = any_failed(bundle.judgements);
  const bool as_kept =
      std::equal(then.begin(), then.end(), bundle.judgements.begin(),
                 [](const Judgement& a, const Judgement& b) { return a.failed == b.failed; });
  const std::optional<OpenedDevice> device = device_for(stored, options, console);
  Rerun rerun;
  if (device) rerun = run_again(bundle, *device->backend, *reference);
  if (console.json()) {
    Json now = nullptr;
    if (device) {
      now = device->description();
      now["result"] = again_name(rerun.again);
      now["ratio"] = number(rerun.ratio);
    }
    console.document({{"schema", 1},
                      {"verdict", wrong ? "diverge" : "agree"},
                      {"bundle", folder},
                      {"divergence", divergence_json(judged_again(bundle))},
                      {"as_kept", as_kept},
                      {"now", now}});
  } else {
    console.write(text(bundle, wrong, as_kept) +
                  (device ? rerun_text(rerun, device->device.kind) : ""));
  }
  return wrong;
}

}  // namespace qwen::cli
