// SPDX-License-Identifier: Apache-2.0
// From a call to the instance of the template that runs it.
#pragma once

#include <atomic>

#include "kernels/cuda/flash/sm90_forward.cuh"
#include "kernels/cuda/runtime/cuda_error.h"

namespace attnmux {
namespace {

template <typename T, int kIndex, bool kPositions>
cudaError_t launch_kernel(const FlashSm90Call& call, cudaStream_t stream) {
  using L = FlashSm90Layout<kFlashSm90Tiles[kIndex]>;
  const auto kernel = flash_sm90_forward<T, kIndex, kPositions>;
  const auto blocks = static_cast<unsigned>(min_of(call.tiles, call.multiprocessors));
  // Above 48 KiB a block must be allowed its shared memory, once per device. A context of the caller's own starts
  // without: then again.
  constinit static std::atomic<uint32_t> allowed{0};
  const uint32_t device = uint32_t{1} << call.p.device_id;
  for (bool first = (allowed.load(std::memory_order_relaxed) & device) == 0;; first = true) {
    if (first) {
      const cudaError_t code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes);
      if (code != cudaSuccess) return code;
    }
    kernel<<<blocks, L::kThreads, L::kBytes, stream>>>(call);
    const cudaError_t code = cudaGetLastError();
    if (code == cudaSuccess && first) allowed.fetch_or(device, std::memory_order_relaxed);
    if (code != cudaErrorInvalidValue || first) return code;
  }
}

template <typename T, int kIndex>
attnmux_code launch_tile(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  using L = FlashSm90Layout<kFlashSm90Tiles[kIndex]>;
  const Problem& p = call.p;
  const struct {
    const Tensor& tensor;
    uint32_t rows;
    TensorMap& map;
  } maps[] = {{p.q, L::kM, call.q_map}, {p.k, L::kN, call.k_map}, {p.v, L::kN, call.v_map}};
  for (const auto& [tensor, rows, map] : maps) {
    if (p.seqlen_kv == 0) break;  // nothing is copied
    const attnmux_code code = encode_tensor_map(tensor, rows, map, error);
    if (code != ATTNMUX_OK) return code;
  }
  call.q_tiles = static_cast<int32_t>(ceil_div(p.seqlen_q, L::kM));
  call.tiles = static_cast<int32_t>(call.q_tiles * p.num_heads_q * p.batch);
  const bool positions = p.window_left >= 0 || p.window_right >= 0;
  const cudaError_t code =
      positions ? launch_kernel<T, kIndex, true>(call, stream) : launch_kernel<T, kIndex, false>(call, stream);
  ATTNMUX_CUDA_TRY(code, "launching cuda_flash_sm90");
  return ATTNMUX_OK;
}

// The first tile of the table that is wide enough.
template <typename T, int kIndex = 0>
attnmux_code launch_flash_sm90(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  constexpr FlashSm90Tile kTile = kFlashSm90Tiles[kIndex];
  constexpr int kCount = sizeof(kFlashSm90Tiles) / sizeof(kTile);
  if constexpr (kIndex + 1 < kCount) {
    if (call.p.head_dim > kTile.dim || call.p.head_dim_v > kTile.dim_v)
      return launch_flash_sm90<T, kIndex + 1>(call, stream, error);
  }
  return launch_tile<T, kIndex>(call, stream, error);
}

}  // namespace
}  // namespace attnmux
