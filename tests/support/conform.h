// SPDX-License-Identifier: Apache-2.0
// Runs a case on kernels and holds the result to the contract: tolerance, log-sum-exp, untouched surroundings and
// inputs, planned = unplanned, any number of threads, refusals with a reason.
#pragma once

#include "support/case.h"
#include "support/catalog.h"

namespace attnmux::test {

struct Result {
  Status status;
  Tensor out, lse;
  bool refused() const { return status.code() == Code::kUnsupported; }
};

/// One attention() call on poisoned outputs.
Result run(const Case& c, const Target& target, const ExecContext& exec = {});
/// The same through a plan made from pointerless views, with exactly the workspace that it asks for.
Result run_planned(const Case& c, const Target& target, const ExecContext& exec = {});

/// What the tolerance rule says about a result of this kernel: empty if it passes, else what is wrong.
std::string compare(const Case& c, const Result& result, const Target& target);
/// How far an LSE may be off beyond the rule: the relative error of the exp2 that a kernel of the class "16-bit" may
/// use (d ln(sum) = d sum / sum), or of the parabola that is enough for E4M3; 0 for kernels of the class "exact".
double lse_allowance(const Target& target, Dtype dtype);

/// Everything above on one kernel; reports with ADD_FAILURE and counts runs and refusals for the summary.
void check(const Case& c, const Target& target);

/// check() on every kernel of the machine. A kernel is the same under every backend that lists it, so each case runs it
/// under one of them, in turn, and a kernel that is tied to one shape runs every third; the intensity "full" runs all
/// under all.
void conform(const Case& c);
inline void conform(const Spec& spec) { conform(Case(spec)); }

/// dtypes that at least one kernel here takes.
std::vector<Dtype> tested_dtypes();

}  // namespace attnmux::test
