// SPDX-License-Identifier: Apache-2.0
// What can run on this machine, from attnmux_describe: a new kernel is tested without a new file.
#pragma once

#include <attnmux/attnmux.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux::test {

nlohmann::json describe(int32_t topic);

/// A kernel of a backend, available. CUDA kernels are among them in the conformance suite of a build that has them
/// (support/device/mirror.cpp copies the tensors). ATTNMUX_TEST_DEVICES = all (default) | cpu | cuda.
struct Target {
  std::string backend_name, kernel;
  Backend backend;
  uint32_t dtypes = 0;    // bits 1 << ATTNMUX_FP32, …
  uint64_t features = 0;  // claimed
  uint32_t exact = 0;     // dtypes of the accuracy class "exact"
  bool on_cuda = false;
  bool one_shape = false;  // its plans serve the planned shape alone
  std::string text() const { return backend_name + "/" + kernel; }
  bool takes(Dtype dtype) const { return dtypes >> static_cast<int32_t>(dtype) & 1; }
  bool is_exact(Dtype dtype) const { return exact >> static_cast<int32_t>(dtype) & 1; }
};

/// Set by what can run CUDA kernels on tensors in host memory, before the first call of targets().
inline bool cuda_tensors_can_be_mirrored = false;

/// Every backend × kernel of this machine, in the order of the table.
const std::vector<Target>& targets();
/// Each kernel once, under the first backend that has it.
const std::vector<Target>& kernels();
/// The entry of kernels() with this name; throws if there is none.
const Target& kernel_named(std::string_view name);

/// Where the tests' data lies: ATTNMUX_TEST_SOURCE_DIR, for a binary that was carried to another machine, else the
/// source tree that it was built from.
std::string source_dir();

/// How much to run: ATTNMUX_TEST_INTENSITY = smoke (emulators, sanitizers) | ci (default) | full.
enum class Intensity { kSmoke, kCi, kFull };
Intensity intensity();
/// One of three numbers, by intensity.
template <typename T>
T scaled(T smoke, T ci, T full) {
  return intensity() == Intensity::kSmoke ? smoke : intensity() == Intensity::kCi ? ci : full;
}

}  // namespace attnmux::test
