// SPDX-License-Identifier: Apache-2.0
// How far a result is from the truth, and how far it may be (docs/numerics.md).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "attnmux/problem_spec.h"

namespace attnmux::cli {

struct Difference {
  double max_abs = 0;  // NaN where NaNs or infinities do not coincide
  double rel_l2 = 0;   // |a - reference|₂ / |reference|₂
};
Difference difference(std::span<const double> values, std::span<const double> reference);

/// Units in the last place, and half the distance between two neighbours of 1.
double ulp_at(Dtype dtype, double magnitude);
double unit_roundoff(Dtype dtype);
double max_magnitude(std::span<const double> values);

/// The truth in fp64, and the textbook loop that tolerances are derived from.
struct Oracle {
  std::vector<double> out, lse;              // fp64
  std::vector<double> plain_out, plain_lse;  // fp32 scores, P rounded to the input dtype
};
/// `lse` only where it is asked for. Throws Error.
Oracle oracle(const Call& call, const ProblemSpec& spec, bool lse);

/// What an error may be: twice that of the textbook loop, and the rounding of the output dtype.
struct Tolerance {
  double max_abs = 0, rel_l2 = 0;
  bool admits(const Difference& d) const { return d.max_abs <= max_abs && d.rel_l2 <= rel_l2; }
};
Tolerance output_tolerance(const Oracle& oracle, Dtype dtype, std::string_view accuracy_class);
double lse_tolerance(const Oracle& oracle, Dtype dtype);

}  // namespace attnmux::cli
