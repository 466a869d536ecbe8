// SPDX-License-Identifier: Apache-2.0
// FlashAttention on the CPU: tiled, with online softmax, no score matrix in memory. One kernel per instruction set; on
// other processors than x86-64 those that need one refuse.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

extern const Kernel kCpuFlashBaseline;
extern const Kernel kCpuFlashAvx2;
extern const Kernel kCpuFlashAvx512;
extern const Kernel kCpuFlashAvx512Bf16;
extern const Kernel kCpuFlashAmx;

}  // namespace attnmux
