// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm80_launch.cuh"

namespace attnmux {

int launch_flash_sm80_fp16(FlashSm80Call& call, FlashFeatures features, void* stream) {
  return launch_flash_sm80<__half>(call, features, static_cast<cudaStream_t>(stream));
}

}  // namespace attnmux
