// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/efficient/efficient_forward.cuh"

namespace attnmux {

int launch_efficient_fp32(EfficientCall& call, bool general, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  return general ? launch_efficient_width<float, true>(call, queue) : launch_efficient_width<float, false>(call, queue);
}

}  // namespace attnmux
