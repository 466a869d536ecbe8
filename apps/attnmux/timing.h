// SPDX-License-Identifier: Apache-2.0
// Median times of alternatives, measured interleaved, so that a machine that changes its speed does so to all of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace attnmux::cli {

struct Alternative {
  std::string name;
  std::function<void()> run;
};

struct Timing {
  double median_s = 0, min_s = 0;
  int runs = 0;
};

/// Runs each alternative once to warm up, then all of them in turn, until each has used up its seconds; at least three
/// times each. `progress` gets the share that is done.
std::vector<Timing> measure(const std::vector<Alternative>& alternatives, double seconds_each,
                            const std::function<void(double, const std::string&)>& progress);

}  // namespace attnmux::cli
