// SPDX-License-Identifier: Apache-2.0
#include "attnmux/timing.h"

#include <algorithm>
#include <chrono>

namespace attnmux::cli {
namespace {

constexpr size_t kFewestRuns = 3, kMostRuns = 10'000;

double seconds(const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  run();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle), values.end());
  if (values.size() % 2 == 1) return values[middle];
  return (values[middle] + *std::max_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle))) / 2;
}

}  // namespace

std::vector<Timing> measure(const std::vector<Alternative>& alternatives, double seconds_each,
                            const std::function<void(double, const std::string&)>& progress) {
  const size_t count = alternatives.size();
  std::vector<std::vector<double>> samples(count);
  std::vector<double> used(count);
  for (size_t i = 0; i < count; ++i) {
    progress(0, "warming up " + alternatives[i].name);
    alternatives[i].run();
  }
  const auto finished = [&](size_t i) {
    return samples[i].size() >= kFewestRuns && (used[i] >= seconds_each || samples[i].size() >= kMostRuns);
  };
  double shown_at = -1;
  for (bool all_finished = false; !all_finished;) {
    all_finished = true;
    double done = 0;
    for (size_t i = 0; i < count; ++i) {
      if (!finished(i)) {
        const double time = seconds(alternatives[i].run);
        samples[i].push_back(time);
        used[i] += time;
        all_finished = false;
      }
      done += finished(i) ? 1 : std::min(1.0, used[i] / std::max(seconds_each, 1e-9));
    }
    done /= static_cast<double>(count);
    if (done >= shown_at + 0.01) progress(shown_at = done, std::to_string(count) + " to measure");
  }
  std::vector<Timing> timings;
  for (const auto& values : samples) {
    timings.push_back(
        {median(values), *std::min_element(values.begin(), values.end()), static_cast<int>(values.size())});
  }
  return timings;
}

}  // namespace attnmux::cli
