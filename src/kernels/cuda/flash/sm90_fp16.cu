// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm90_launch.cuh"

namespace attnmux {

attnmux_code launch_flash_sm90_fp16(FlashSm90Call& call, void* stream, attnmux_error* error) {
  const auto on = static_cast<cudaStream_t>(stream);
  return call.features == FlashSm90Features::kPlain
             ? launch_flash_sm90<__half, FlashSm90Features::kPlain>(call, on, error)
             : launch_flash_sm90<__half, FlashSm90Features::kPositions>(call, on, error);
}

}  // namespace attnmux
