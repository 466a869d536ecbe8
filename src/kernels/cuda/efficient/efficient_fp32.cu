// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/efficient/efficient_forward.cuh"

namespace attnmux {

int launch_efficient_fp32(FlashSm80Call& call, void* stream) {
  return launch_efficient<float>(call, static_cast<cudaStream_t>(stream));
}

}  // namespace attnmux
