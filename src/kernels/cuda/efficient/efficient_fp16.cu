// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/efficient/efficient_forward.cuh"

namespace attnmux {

int launch_efficient_fp16(FlashSm80Call& call, void* stream) {
  return launch_efficient<__half>(call, static_cast<cudaStream_t>(stream));
}

}  // namespace attnmux
