// SPDX-License-Identifier: Apache-2.0
// cuda_cudnn: NVIDIA's own fused attention, where cuDNN 9 is installed. Graphs are built once per shape and kept.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

extern const Kernel kCudaCudnn;

}  // namespace attnmux
