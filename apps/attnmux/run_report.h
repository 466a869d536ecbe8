// SPDX-License-Identifier: Apache-2.0
// The work of `attnmux run`: plan, run, compare, time, report, write.
#pragma once

#include "attnmux/run_files.h"

namespace attnmux::cli {

struct RunFlags {
  TensorNames names;
  ProblemFlags problem;
  bool all = false, json = false;
  std::string out, title;
  double seconds = 0.5;
};

/// Returns the exit code: 1 where an error exceeds its tolerance.
int run_files(const RunFlags& flags);

}  // namespace attnmux::cli
