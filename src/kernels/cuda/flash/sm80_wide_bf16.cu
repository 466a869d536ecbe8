// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm80_wide.cuh"

namespace attnmux {

int launch_flash_wide_bf16(FlashSm80Call& call, bool positions_only, void* stream) {
  return launch_flash_wide<__nv_bfloat16>(call, positions_only, static_cast<cudaStream_t>(stream));
}

}  // namespace attnmux
