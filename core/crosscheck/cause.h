// Naming the cause of divergences: whether the op is wrong by itself at all, and which deliberately
// wrong variant reproduces what the path made, at every place where the same op of the model
// failed.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/crosscheck/replays.h"
#include "core/crosscheck/sides.h"
#include "core/crosscheck/variants.h"

namespace qwen::crosscheck {

// What is tried. One class of failures is one tap's name ("rope_q") in all layers and steps.
class Hypotheses {
 public:
  explicit Hypotheses(const Sides& sides) : sides_(sides), replays_(sides) {}

  // Runs the op again by itself and tries the variants on it. Does nothing for a class with
  // kMaxSites sites. Returns the index of the class.
  int add_site(const FailedOp& op);
  // A class whose cause is known without trying.
  int add_known(const Tap& tap, Cause cause);

  Cause cause(int index) const;

 private:
  static constexpr int kMaxSites = 25;
  // Each costs several runs of the op.
  static constexpr int kReplayedSites = 3;
  // Of a tolerance: a variant that is so far off at one site is not tried at others.
  static constexpr double kHopeless = 1000;
  struct Candidate {
    std::string_view cause;
    bool is_noise = false;
    double worst = 0;  // largest ratio at all sites; infinite if it did not apply at one of them
  };
  struct Class {
    std::string name;
    int sites = 0;
    std::vector<Candidate> candidates = {};
    Cause known = {};
    // Of Replays::by_itself, the same at all replayed sites.
    std::optional<Cause> by_itself = {};
    // Of Replays::depends_on at the first site.
    std::optional<Cause> circumstances = {};
  };

  void replay(Class& c, const FailedOp& op);
  void try_gemm(Class& c, const Op& inputs, const std::vector<Tensor>& got,
                const std::vector<std::int64_t>& failed);
  void try_all(Class& c, const Op& inputs, const std::vector<Tensor>& got);
  static bool hopeless(const Class& c, std::string_view cause);
  // It does not apply at a site.
  static void rule_out(Class& c, std::string_view cause);
  static void note(Class& c, std::string_view cause, bool is_noise, double ratio);

  Sides sides_;
  Replays replays_;
  Scratch scratch_;
  std::vector<Class> classes_;
};

}  // namespace qwen::crosscheck
