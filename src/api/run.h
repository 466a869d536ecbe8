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

/// Scratch that the kernel wants, and room to align it: what plan.workspace_bytes() reports. 0 stays 0.
size_t workspace_needed(const Kernel& kernel, const Problem& problem, int32_t num_threads);

attnmux_code run_kernel(const Kernel& kernel, const Problem& problem, const attnmux_exec& exec, int32_t num_threads,
                        attnmux_error* error);

}  // namespace attnmux
