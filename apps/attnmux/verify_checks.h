// SPDX-License-Identifier: Apache-2.0
// What `attnmux verify` holds one kernel of one backend to, and what it found.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "attnmux/backend_table.h"
#include "attnmux/numerics.h"
#include "attnmux/verify_cases.h"

namespace attnmux::cli {

/// The worst of what was seen.
struct Worst {
  double max_error = 0, rel_l2 = 0;          // against fp64
  double plain_error = 0, plain_rel_l2 = 0;  // against the textbook loop
  double lse_error = 0;
  double share = 0;  // of the tolerance, the largest; above 1 it is broken
  int checked = 0, refused = 0;
  bool deterministic = true;

  void add(const Worst& other);
};

struct KernelReport {
  const BackendInfo* backend = nullptr;
  const KernelInfo* kernel = nullptr;
  std::map<std::string, Worst> by_dtype;
  std::map<std::string, int> refusals;  // reason → how often
  std::vector<std::string> failures;    // one sentence each

  Worst total() const;
  bool passed() const { return failures.empty(); }
};

/// A case with its inputs and its truth, shared by all kernels.
struct PreparedCase {
  explicit PreparedCase(const VerifyCase& c);
  VerifyCase source;
  std::string name;
  RandomInputs random;
  Inputs in;
  Oracle truth;
};

/// Runs the case: error, log-sum-exp, the same bits again, planned or not, at any number of threads.
void check(KernelReport& report, const PreparedCase& prepared);

}  // namespace attnmux::cli
