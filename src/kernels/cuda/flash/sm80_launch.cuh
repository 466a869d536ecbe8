// SPDX-License-Identifier: Apache-2.0
// From a call to the instance of the template that runs it.
#pragma once

#include <atomic>

#include "kernels/cuda/flash/sm80_forward.cuh"

namespace attnmux {
namespace {

// Above 48 KiB a block must be allowed its shared memory, once per device. The value is the same for every call, since
// another thread may launch the same kernel in between. A context of the caller's own starts without: then again.
template <typename KernelFunction, typename Launch>
cudaError_t launch_with_shared(KernelFunction kernel, std::atomic<uint32_t>& allowed, int32_t device_id, size_t most,
                               const Launch& launch) {
  const uint32_t device = uint32_t{1} << device_id;
  for (bool first = (allowed.load(std::memory_order_relaxed) & device) == 0;; first = true) {
    if (first) {
      const cudaError_t code =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(most));
      if (code != cudaSuccess) return code;
    }
    launch();
    const cudaError_t code = cudaGetLastError();
    if (code == cudaSuccess && first) allowed.fetch_or(device, std::memory_order_relaxed);
    if (code != cudaErrorInvalidValue || first) return code;
  }
}

template <typename T, int kDim, FlashFeatures kFeatures>
cudaError_t launch_instance(FlashSm80Call& call, cudaStream_t stream) {
  using Shape = FlashTile<kDim, kFeatures>;
  const auto kernel = flash_sm80_forward<T, kDim, kFeatures>;
  size_t shared = Shape::kSharedBytes, most = shared;
  if constexpr (Shape::kMasks) {
    const uint32_t bias_bytes = Shape::kM * Shape::bias_pitch(call.p.bias.dtype == ATTNMUX_FP32 ? 4 : 2);
    most += Shape::kPaddingBytes + Shape::kMaskBytes + Shape::kM * Shape::bias_pitch(4);
    shared += Shape::kPaddingBytes + (given(call.p.dense_mask) ? Shape::kMaskBytes : 0) +
              (given(call.p.bias) ? bias_bytes : 0);
  }
  const auto limit = static_cast<size_t>(call.shared_limit);
  if constexpr (Shape::kMasks) {
    // Too much for this GPU: the instance that looks masks up in global memory needs less.
    if (shared > limit) return launch_instance<T, kDim, FlashFeatures::kAll>(call, stream);
  }
  call.q_tiles = ceil_div(call.p.seqlen_q, Shape::kM);
  const int64_t blocks = call.q_tiles * call.p.num_heads_q * call.p.batch;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  constinit static std::atomic<uint32_t> allowed{0};
  return launch_with_shared(kernel, allowed, call.p.device_id, most < limit ? most : limit,
                            [&] { kernel<<<static_cast<unsigned>(blocks), Shape::kThreads, shared, stream>>>(call); });
}

template <typename T>
cudaError_t launch_flash_sm80(FlashSm80Call& call, FlashFeatures features, cudaStream_t stream) {
  constexpr auto kPositions = FlashFeatures::kPositions, kKeys = FlashFeatures::kKeys, kMasks = FlashFeatures::kMasks,
                 kAll = FlashFeatures::kAll;
  const int64_t dim = max_of(call.p.head_dim, call.p.head_dim_v);
  switch (features) {
    case kAll:
      return dim <= 64    ? launch_instance<T, 64, kAll>(call, stream)
             : dim <= 128 ? launch_instance<T, 128, kAll>(call, stream)
                          : launch_instance<T, 256, kAll>(call, stream);
    case kKeys:
      return dim <= 64    ? launch_instance<T, 64, kKeys>(call, stream)
             : dim <= 128 ? launch_instance<T, 128, kKeys>(call, stream)
                          : launch_instance<T, 256, kKeys>(call, stream);
    case kMasks:
      return dim <= 64    ? launch_instance<T, 64, kMasks>(call, stream)
             : dim <= 128 ? launch_instance<T, 128, kMasks>(call, stream)
                          : launch_instance<T, 256, kMasks>(call, stream);
    case FlashFeatures::kSmallBlocks:
      return launch_instance<T, 64, FlashFeatures::kSmallBlocks>(call, stream);
    case kPositions:
      break;
  }
  return dim <= 32    ? launch_instance<T, 32, kPositions>(call, stream)
         : dim <= 48  ? launch_instance<T, 48, kPositions>(call, stream)
         : dim <= 64  ? launch_instance<T, 64, kPositions>(call, stream)
         : dim <= 80  ? launch_instance<T, 80, kPositions>(call, stream)
         : dim <= 96  ? launch_instance<T, 96, kPositions>(call, stream)
         : dim <= 128 ? launch_instance<T, 128, kPositions>(call, stream)
         : dim <= 160 ? launch_instance<T, 160, kPositions>(call, stream)
         : dim <= 192 ? launch_instance<T, 192, kPositions>(call, stream)
                      : launch_instance<T, 256, kPositions>(call, stream);
}

}  // namespace
}  // namespace attnmux
