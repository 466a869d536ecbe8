// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm90_launch.cuh"

namespace attnmux {

attnmux_code launch_flash_sm90_keys_bf16(FlashSm90Call& call, void* stream, attnmux_error* error) {
  return launch_flash_sm90<__nv_bfloat16, FlashSm90Features::kKeys>(call, static_cast<cudaStream_t>(stream), error);
}

}  // namespace attnmux
