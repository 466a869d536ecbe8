// SPDX-License-Identifier: Apache-2.0
// The built-in problems of `attnmux verify`.
#pragma once

#include <string>
#include <vector>

#include "attnmux/inputs.h"

namespace attnmux::cli {

struct VerifyCase {
  ProblemSpec spec;
  RandomExtras extras;
};

/// "2×65×4×64, bfloat16, causal, dense mask"
std::string text(const VerifyCase& c);
/// Small problems that together touch every dtype, mask, option and edge.
std::vector<VerifyCase> built_in_cases();

}  // namespace attnmux::cli
