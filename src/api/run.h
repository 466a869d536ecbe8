// SPDX-License-Identifier: Apache-2.0
// Last hop: from a chosen kernel to a launch.
#pragma once

#include <attnmux/attnmux_c.h>

#include "kernels/kernel.h"

namespace attnmux {

/// The exec of a call, or the defaults where there is none; refuses what this build does not understand, and a stream
/// for CPU tensors or none for CUDA tensors.
attnmux_code read_exec(const attnmux_exec* given, const Problem& problem, attnmux_exec& exec, attnmux_error* error);

/// The threads that a kernel may use, always at least 1.
int32_t threads_of(const attnmux_exec& exec);

/// What a kernel prepared for one problem, given back at the end of the scope. Of most kernels: nothing.
class Prepared {
 public:
  Prepared() = default;
  Prepared(Prepared&& other) noexcept : kernel_(other.kernel_), c_(other.c_) { other.kernel_ = nullptr; }
  Prepared& operator=(Prepared&&) = delete;
  ~Prepared() {
    if (kernel_ != nullptr && c_.state != nullptr) kernel_->release(c_.state);
  }
  attnmux_code make(const Kernel& kernel, const Problem& problem, attnmux_error* error);
  const attnmux_prepared& c() const { return c_; }

 private:
  const Kernel* kernel_ = nullptr;
  attnmux_prepared c_{};
};

/// Scratch that the kernel wants, and room to align it: what plan.workspace_bytes() reports. 0 stays 0.
size_t workspace_needed(const Kernel& kernel, const Prepared& prepared, const Problem& problem, int32_t num_threads);

attnmux_code run_kernel(const Kernel& kernel, const Prepared& prepared, const Problem& problem,
                        const attnmux_exec& exec, int32_t num_threads, attnmux_error* error);

}  // namespace attnmux
