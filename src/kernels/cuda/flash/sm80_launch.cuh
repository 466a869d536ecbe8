// SPDX-License-Identifier: Apache-2.0
// From a call to the instance of the template that runs it.
#pragma once

#include "kernels/cuda/flash/sm80_forward.cuh"

namespace attnmux {
namespace {

template <typename T, int kDim, bool kGeneral>
cudaError_t launch_instance(FlashSm80Call& call, cudaStream_t stream) {
  using Shape = FlashTile<kDim, kGeneral>;
  const auto kernel = flash_sm80_forward<T, kDim, kGeneral>;
  // Above 48 KiB a block must be allowed its shared memory, on each device; the call costs less than a lookup table.
  cudaError_t code =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(Shape::kSharedBytes));
  if (code != cudaSuccess) return code;
  call.q_tiles = ceil_div(call.p.seqlen_q, Shape::kM);
  const int64_t blocks = call.q_tiles * call.p.num_heads_q * call.p.batch;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  kernel<<<static_cast<unsigned>(blocks), Shape::kThreads, Shape::kSharedBytes, stream>>>(call);
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_flash_sm80(FlashSm80Call& call, int tile_dim, bool general, cudaStream_t stream) {
  switch (tile_dim) {
    case 64:
      return general ? launch_instance<T, 64, true>(call, stream) : launch_instance<T, 64, false>(call, stream);
    case 128:
      return general ? launch_instance<T, 128, true>(call, stream) : launch_instance<T, 128, false>(call, stream);
    default:
      return general ? launch_instance<T, 256, true>(call, stream) : launch_instance<T, 256, false>(call, stream);
  }
}

}  // namespace
}  // namespace attnmux
