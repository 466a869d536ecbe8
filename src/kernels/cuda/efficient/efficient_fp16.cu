// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/efficient/efficient_forward.cuh"

namespace attnmux {

// Rows that cuda_flash_sm80 refuses: one instance for all arguments.
int launch_efficient_fp16(EfficientCall& call, bool /*general*/, void* stream) {
  return launch_efficient_width<__half, true>(call, static_cast<cudaStream_t>(stream));
}

}  // namespace attnmux
