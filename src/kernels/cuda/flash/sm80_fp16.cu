// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm80_launch.cuh"

namespace attnmux {

int launch_flash_sm80_fp16(FlashSm80Call& call, int tile_dim, bool general, void* stream) {
  return launch_flash_sm80<__half>(call, tile_dim, general, static_cast<cudaStream_t>(stream));
}

}  // namespace attnmux
