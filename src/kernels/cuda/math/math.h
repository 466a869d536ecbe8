// SPDX-License-Identifier: Apache-2.0
// cuda_math: any argument of the contract, any head_dim, four dtypes; one warp per query. Simple and right.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

extern const Kernel kCudaMath;

/// Launches on the stream of the context; the problem has at least one row.
attnmux_code run_cuda_math(const Problem* problem, const RunContext* context, attnmux_error* error);

}  // namespace attnmux
