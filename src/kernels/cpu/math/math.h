// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

/// cpu_math: plain softmax(QKᵀ)V for any argument, shape and dtype; fp32 arithmetic, fp64 for fp64. Materialises the
/// scores of 64 queries at a time.
extern const Kernel kCpuMath;

}  // namespace attnmux
