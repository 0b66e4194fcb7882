#include "core/crosscheck/faults.h"

#include <algorithm>
#include <utility>

namespace qwen::crosscheck {
namespace {

using Load = LoadFault::Kind;

constexpr std::string_view kAlone =
    "right when it runs by itself: its buffers overlap others', or it ran out of order";

// In both layers, or in the last one: what follows from a fault must not hide it.
const std::vector<Fault>& catalogue() {
  static const std::vector<Fault> kFaults = {
      {"M21", {{"embed", "the embedding is indexed by column"}}},
      {"M21b", {{"embed", "token id + 1 is looked up"}}},
      {"M37c", {{"embed", "the embedding is scaled by the root of dim"}}},
      {"M9a", {{"attn_norm", "eps is 1e-5", 0}}},
      {"M9b", {{"attn_norm", "LayerNorm: the mean is subtracted first"}}},
      {"M9c", {{"ffn_norm", "the norm's weight is left out"}}},
      {"M37d", {{"final_norm", "1 is added to the norm's weight"}}},
      {"M7a", {{"q_proj", "the weight is read transposed", 1}}},
      {"M7b", {{"k_proj", "the weight's rows are read one element too far apart"}}},
      {"M7c", {{"o_proj", "the weight is read transposed"}}},
      {"M42a", {{"v_proj", "the weight's rows are shifted by one", 1}}},
      {"M42b", {{"down", "neighbouring rows of the weight are swapped", 0}}},
      {"M24", {{"up", "the last 32 columns are left out"}}},
      {"M45", {{"gate", "the last rows of the output are zero"}}},
      {"M26", {{"logits", "the last rows of the output are zero"}}},
      {"M41", {{"q_proj", "sums are kept in F16"}}},
      {"M16a", {{"q_bias", "the bias is left out"}}},
      {"M16b", {}, {Load::kZeroed, ".bias", 0, "all zero"}},
      {"M25", {}, {Load::kZeroed, "down.weight", 0, "all zero"}},
      {"M20", {}, {Load::kOffset, "q.weight", 0, "read 32 bytes too far on"}},
      {"M35", {}, {Load::kOther, "v.weight", 0, "holds layer"}},
      {"M46", {}, {Load::kShuffled, "up.weight", 0, "the right blocks in another order"}},
      {"M3i", {}, {Load::kNumber, "rope.freq_base", 1e4f, "the table of base 10000"}},
      {"M9d", {}, {Load::kNumber, "layer_norm_rms_epsilon", 1e-5f, "another eps"}},
      {"M6a", {{"k_bias", "the bias is added twice"}}},
      {"M6b", {{"q_bias", "the bias is shifted by 64 elements", 1}}},
      {"M6c", {{"v_bias", "the bias's first element is added to all"}}},
      {"M6d", {{"q_bias", "the bias is subtracted"}}},
      {"M13a", {{"q_bias", "large biases are dropped"}}},
      {"M13b", {{"k_bias", "the result is clamped to 20"}}},
      {"M3a", {{"rope_q", "the base is 1e4"}}},
      {"M3b", {{"rope_k", "only the first half of the pairs is rotated"}}},
      {"M3c", {{"rope_k", "not rotated, or as if at position 0"}}},
      {"M3e", {{"rope_q", "adjacent pairs (2i, 2i+1) are rotated instead of (i, i + head_dim/2)"}}},
      {"M3f", {{"rope_q", "not rotated, or as if at position 0", 1}}},
      {"M3g", {{"rope_q", "the sine has the other sign", 1}}},
      {"M3d", {{"rope_q", "position + 1", -1, Mishap::kNone, 2}}},
      {"M3h", {{"rope_q", "position + 1"}, {"rope_k", "position + 1"}}},
      {"M1c", {{"kv_write", "all key/value heads are stored in the place of head 0"}}},
      {"M5b", {{"kv_write", "only key/value head 0 is stored"}}},
      {"M8c", {{"kv_write", "stored one position too early"}}},
      {"M15", {{"kv_write", "always stored at position 0"}}},
      {"M18", {{"kv_write", "nothing is stored", 1}}},
      {"M19", {{"kv_write", "only the step's first token is stored"}}},
      {"M37e", {{"kv_write", "keys and values are swapped"}}},
      {"M40", {{"kv_write", "stored in 8 bits (E5M2)"}}},
      {"M51", {{"kv_write", "stored in the pages of another sequence"}}},
      {"C1", {{"kv_write", "the keys' center is not subtracted"}}},
      {"C2", {{"kv_write", "the center of key head 0 is taken from all"}}},
      {"M1d", {{"attn_out", "one slot is read for all keys"}}},
      {"M2a", {{"attn_out", "the row's maximum is not subtracted"}}},
      {"M2b", {{"attn_out", "scores are rounded to F16"}}},
      {"M2c", {{"attn_out", "scores are not scaled"}}},
      {"M2d", {{"attn_out", "scores are scaled twice", 1}}},
      {"M5a", {{"attn_out", "kv_head = head % n_kv_heads instead of head / group"}}},
      {"M8a", {{"attn_out", "the token's own key is not seen"}}},
      {"M8b", {{"attn_out", "one key too many is read"}}},
      {"M8d", {{"attn_out", "the key of position 0 is not seen"}}},
      {"M10", {{"attn_out", "later tokens of the step are seen"}}},
      {"M12", {{"attn_out", "scores are clipped at 50"}}},
      {"M52", {{"attn_out", "the cache of another sequence is read"}}},
      {"M37a", {{"swiglu", "gate and up are swapped"}}},
      {"M37f", {{"swiglu", "SiLU is left out"}}},
      {"M37g", {{"swiglu", "GELU instead of SiLU"}}},
      {"M43", {{"swiglu", "the exponential of SiLU is rounded to F16"}}},
      {"M37b", {{"resid1", "the residual is dropped"}}},
      {"M37h", {{"resid2", "nothing is added to the residual", 0}}},
      {"M32a", {{"token", "the temperature is taken for 0"}}},
      {"M32b", {{"token", "the repeat penalty is left out"}}},
      {"M32c", {{"token", "the draw is that of the next position"}}},
      {"M32d", {{"token", "the chosen token is not marked as seen"}}},
      {"M50", {{"token", kAlone, -1, Mishap::kStaleInput}}},
      {"M33", {{"take_rows", "the first row is taken"}}},
      // The two that the predecessor never found, with two more of its time.
      {"P",
       {{"rope_q", "adjacent pairs (2i, 2i+1) are rotated instead of (i, i + head_dim/2)"},
        {"q_proj", "the weight is read transposed"},
        {"kv_write", "all key/value heads are stored in the place of head 0"}},
       {Load::kZeroed, ".bias", 0, "all zero"}},
      // Not what is computed is wrong, but how it is run.
      {"M4", {{"o_proj", kAlone, -1, Mishap::kOverlap}}},
      {"M49", {{"down", kAlone, 1, Mishap::kStaleInput}}},
      {"M36", {{"gate", "the op gives other bits each time it runs", 0, Mishap::kRace}}},
      {"M34",
       {{"attn_out", "the output is not written, or read before it is", -1, Mishap::kNotLaunched}}},
      {"M48", {{"rope_k", "position - 1", 0, Mishap::kOldPosition}}},
      {"M11", {{"swiglu", "the tokens of a step disturb each other", 0, Mishap::kMixedTokens}}},
  };
  return kFaults;
}

// Faults are planted in ops, and a faulty backend fuses none.
CrossCheckResult run_on(FaultyBackend& faulty, const Sides& sides, const Models& models,
                        const CrossCheckOptions& options) {
  CrossCheckOptions own = options;
  own.n_fused_steps = 0;
  own.progress = [&](std::span<const TokenInput> step, std::int64_t done, std::int64_t total) {
    faulty.begin_step(step);
    if (options.progress) options.progress(step, done, total);
  };
  return cross_check({faulty, sides.oracle, sides.reference, sides.host}, models, own);
}

// Whether the output that was found was changed at that very token.
bool is_placed(const Divergence& d, const std::map<PlantedOutput, Planted>& planted) {
  const auto at = planted.find({d.tap.name, d.tap.layer, d.output});
  return at != planted.end() && std::any_of(at->second.places.begin(), at->second.places.end(),
                                            [&](const Planted::Place& place) {
                                              return place.seq == d.seq && place.token == d.token;
                                            });
}

FaultResult judged(const Fault& fault, const FaultRun& run) {
  FaultResult r{.id = std::string(fault.id)};
  const auto& found = run.result.shadow.divergences;
  const auto& findings = run.result.attestation.findings;
  if (!found.empty()) r.first = found.front();
  // By rising layer. Later ones may get nothing but not-a-number from the first.
  std::map<std::string_view, int> first_layers;
  for (const auto& [at, planted] : run.planted) {
    if (planted.by_more_than_rounding) first_layers.try_emplace(at.tap, at.layer);
  }
  r.applies = run.n_wrong > 0 || !first_layers.empty();
  r.caught = run.result.agreement == Agreement::kDiverge;
  r.placed = r.named = r.caught;
  for (const auto& place : first_layers) {
    const auto first = std::find_if(found.begin(), found.end(), [&](const Divergence& d) {
      return d.tap.name == place.first && d.tap.layer == place.second;
    });
    r.placed = r.placed && first != found.end() && is_placed(*first, run.planted);
  }
  for (const Divergence& d : found) {
    // Another number at load shows in its ops, too.
    r.placed = r.placed && (fault.load.kind == Load::kNumber ||
                            run.planted.contains({d.tap.name, d.tap.layer, d.output}));
  }
  for (const Plant& plant : fault.plants) {
    r.planted +=
        (r.planted.empty() ? "" : "; ") + std::string(plant.tap) + ": " + std::string(plant.cause);
    const auto first = std::find_if(found.begin(), found.end(),
                                    [&](const Divergence& d) { return d.tap.name == plant.tap; });
    r.named = r.named && first != found.end() && first->cause.name == plant.cause;
  }
  if (fault.load.kind == Load::kNone) return r;
  r.planted += (r.planted.empty() ? "" : "; ") + std::string(fault.load.name) +
               " at load: " + std::string(fault.load.cause);
  // A number shows in every op that has it.
  const bool once = fault.load.kind != Load::kNumber;
  const auto found_at_load = std::count_if(findings.begin(), findings.end(), [](const Finding& f) {
    return f.operand != "k_center";  // follows from the bias
  });
  const auto named = std::count_if(findings.begin(), findings.end(), [&](const Finding& f) {
    return f.cause.starts_with(fault.load.cause);
  });
  r.placed = r.placed && found_at_load >= run.n_wrong && (!once || found_at_load == run.n_wrong);
  r.named = r.named && named == found_at_load;
  return r;
}

}  // namespace

std::span<const Fault> fault_catalogue() { return catalogue(); }

FaultRun run_with_fault(const Sides& sides, const OpenModel& open, const CrossCheckOptions& options,
                        const Fault& fault) {
  const std::unique_ptr<ModelFile> path_file = open();
  const std::unique_ptr<ModelFile> oracle_file = open();
  FaultyFile faulty_file(*path_file, fault.load);
  FaultyBackend faulty(sides.path, sides.reference, fault.plants);
  const std::unique_ptr<Model> path = load_model(faulty_file, faulty);
  const std::unique_ptr<Model> oracle = load_model(*oracle_file, sides.oracle);
  CrossCheckResult result = run_on(faulty, sides, {*path, *oracle, *oracle_file}, options);
  return {std::move(result), faulty.planted(), faulty_file.n_wrong()};
}

SelfTest self_test(const Sides& sides, const OpenModel& open, const CrossCheckOptions& options) {
  // Loaded once for all faults but those of the load itself: a device's memory is freed late.
  const std::unique_ptr<ModelFile> path_file = open();
  const std::unique_ptr<ModelFile> oracle_file = open();
  FaultyBackend faulty(sides.path, sides.reference, {});
  const std::unique_ptr<Model> path = load_model(*path_file, faulty);
  const std::unique_ptr<Model> oracle = load_model(*oracle_file, sides.oracle);
  const auto run = [&](const Fault& fault) -> FaultRun {
    if (fault.load.kind != Load::kNone) return run_with_fault(sides, open, options, fault);
    faulty.plant(fault.plants);
    CrossCheckResult found = run_on(faulty, sides, {*path, *oracle, *oracle_file}, options);
    return {std::move(found), faulty.planted()};
  };
  SelfTest result;
  const CrossCheckResult clean = run({}).result;
  result.false_alarms = static_cast<std::int64_t>(clean.shadow.divergences.size() +
                                                  clean.attestation.findings.size()) +
                        clean.shadow.n_unsound;
  for (const Fault& fault : fault_catalogue()) result.faults.push_back(judged(fault, run(fault)));
  return result;
}

}  // namespace qwen::crosscheck
