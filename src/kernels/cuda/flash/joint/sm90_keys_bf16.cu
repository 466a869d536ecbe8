// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/joint/sm90_launch.cuh"

namespace attnmux::joint {

attnmux_code launch_keys_bf16(FlashSm90Call& call, void* stream, attnmux_error* error) {
  return launch_flash_sm90_keys<__nv_bfloat16>(call, static_cast<cudaStream_t>(stream), error);
}

}  // namespace attnmux::joint
