// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm90_wide_launch.cuh"

namespace attnmux {

attnmux_code launch_flash_sm90_wide_fp16(FlashSm90Call& call, void* stream, attnmux_error* error) {
  return launch_flash_sm90_wide<__half>(call, static_cast<cudaStream_t>(stream), error);
}

}  // namespace attnmux
