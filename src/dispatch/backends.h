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

  size_t num_kernels() const {
    size_t n = 0;
    while (n < kMaxKernelsPerBackend && kernels[n] != nullptr) ++n;
    return n;
  }
  std::span<const Kernel* const> list() const { return {kernels, num_kernels()}; }
};

/// Row i has id i+1 and the name kBackendNames[i].
extern const BackendRow kBackends[kBackendNames.size()];

}  // namespace attnmux
