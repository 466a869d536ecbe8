// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm80_launch.cuh"
#include "kernels/cuda/flash/sm80_split.cuh"

namespace attnmux {

int launch_flash_split_bf16(FlashSplitCall& call, bool positions_only, void* stream) {
  return launch_flash_split<__nv_bfloat16>(call, positions_only, static_cast<cudaStream_t>(stream));
}

}  // namespace attnmux
