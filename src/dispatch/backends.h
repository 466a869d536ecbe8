// SPDX-License-Identifier: Apache-2.0
// What a backend is, and the table of those that are built in.
#pragma once

#include <attnmux/backend.h>

#include <span>

#include "kernels/kernel.h"

namespace attnmux {

inline constexpr size_t kMaxKernelsPerBackend = 12;

struct BackendRow {
  const char* name;
  const char* family;
  const char* promise;                           // one line: what the name stands for
  const char* missing;                           // why none of its kernels is in this build; "" where some are
  const Kernel* kernels[kMaxKernelsPerBackend];  // in order of preference; null after the last
  bool automatic = false;    // chooses among families, so it stays within the 16-bit accuracy class unless allowed
  const char* instead = "";  // what a refusal adds: who runs where this backend does not
  bool by_speed = false;     // leaves the order of its kernels where faster_kernel() knows better

  size_t num_kernels() const {
    size_t n = 0;
    while (n < kMaxKernelsPerBackend && kernels[n] != nullptr) ++n;
    return n;
  }
  std::span<const Kernel* const> list() const { return {kernels, num_kernels()}; }
};

/// The rule by which a row of speed leaves the order of its kernels: which of them is faster for this problem than
/// `kernel`, the first that takes it; null: none. The faster one may turn out not to take the problem.
const Kernel* faster_kernel(const BackendRow& row, const Kernel& kernel, const Problem& problem);

/// Row i has id i+1 and the name kBackendNames[i].
extern const BackendRow kBackends[kBackendNames.size()];

}  // namespace attnmux
