// SPDX-License-Identifier: Apache-2.0
// From a call to the instance of the template that runs it.
#pragma once

#include <atomic>

#include "kernels/cuda/flash/sm90_forward.cuh"
#include "kernels/cuda/runtime/cuda_error.h"

namespace attnmux {
namespace {

// Heads whose K and V together fill about half of L2.
inline int32_t heads_of_a_section(const Problem& p, int64_t l2_bytes) {
  const int64_t bytes = max_of(p.seqlen_kv * (p.head_dim + p.head_dim_v) * 2, 1);
  return static_cast<int32_t>(min_of(max_of(l2_bytes / 2 / bytes, 1), p.num_heads_q * p.batch));
}

// The last round is shared where that saves more steps than writing, reading and adding up the pieces costs.
inline FlashSm90Shares share_out(int64_t places, int64_t blocks, int64_t steps, bool may_share) {
  const int64_t rounds = places / blocks, left = places % blocks, share = ceil_div(left * steps, blocks);
  if (!may_share || left == 0 || share + kFlashSm90ShareCost > steps)
    return {static_cast<int32_t>(ceil_div(places, blocks)), static_cast<int32_t>(steps), 0};
  return {static_cast<int32_t>(rounds), static_cast<int32_t>(steps), static_cast<int32_t>(share)};
}

// Above 48 KiB a block must be allowed its shared memory, once per device. A context of the caller's own starts
// without: then again.
template <typename Function>
cudaError_t launch_allowed(Function* kernel, std::atomic<uint32_t>& allowed, const cudaLaunchConfig_t& config,
                           const FlashSm90Call& call) {
  const uint32_t device = uint32_t{1} << call.p.device_id;
  for (bool first = (allowed.load(std::memory_order_relaxed) & device) == 0;; first = true) {
    if (first) {
      const cudaError_t code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                    static_cast<int>(config.dynamicSmemBytes));
      if (code != cudaSuccess) return code;
    }
    const cudaError_t code = cudaLaunchKernelEx(&config, kernel, call);
    if (code == cudaSuccess && first) allowed.fetch_or(device, std::memory_order_relaxed);
    if (code != cudaSuccess) cudaGetLastError();
    if (code != cudaErrorInvalidValue || first) return code;
  }
}

template <typename T, int kIndex, FlashSm90Features kFeatures>
cudaError_t launch_kernel(const FlashSm90Call& call, cudaStream_t stream) {
  constexpr FlashSm90Tile kTile = flash_sm90_tile(kIndex, kFeatures);
  using L = FlashSm90Layout<kTile>;
  const auto kernel = flash_sm90_forward<T, kIndex, kFeatures>;
  int64_t clusters = call.multiprocessors / kTile.cluster;
  if (call.shares.share == 0) clusters = min_of(int64_t{call.items} * call.q_tiles, clusters);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(kTile.cluster), 1, 1};
  const cudaLaunchConfig_t config{static_cast<unsigned>(clusters * kTile.cluster),
                                  L::kThreads,
                                  L::kBytes,
                                  stream,
                                  &cluster,
                                  kTile.cluster > 1 ? 1u : 0u};
  constinit static std::atomic<uint32_t> allowed{0};
  return launch_allowed(kernel, allowed, config, call);
}

template <typename T, int kIndex, FlashSm90Features kFeatures>
attnmux_code launch_tile(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  constexpr FlashSm90Tile kTile = flash_sm90_tile(kIndex, kFeatures);
  using L = FlashSm90Layout<kTile>;
  const Problem& p = call.p;
  call.pack = flash_sm90_is_streamed(kFeatures) ? 1 : flash_sm90_pack(p, kTile);
  call.tile_rows = static_cast<int32_t>(flash_sm90_tile_rows(kTile, call.pack));
  if (p.seqlen_kv > 0) {  // else nothing is copied
    const auto pack = static_cast<uint32_t>(call.pack), rows = static_cast<uint32_t>(call.tile_rows);
    constexpr uint32_t kKeys = L::kN / kTile.cluster;
    attnmux_code code = call.pack > 1 ? encode_packed_map(p.q, pack, rows / pack, call.q_map, error)
                                      : encode_tensor_map(p.q, rows, call.q_map, error);
    if (code == ATTNMUX_OK) code = encode_tensor_map(p.k, kKeys, call.k_map, error);
    if (code == ATTNMUX_OK) code = encode_tensor_map(p.v, kKeys, call.v_map, error);
    if (code != ATTNMUX_OK) return code;
  }
  if constexpr (kFeatures == FlashSm90Features::kAll) {
    call.bias_rows = p.bias.strides[2] == 0 ? 1 : L::kM;
    if (call.bias_boxes != 0 && p.seqlen_kv > 0) {
      const auto code = encode_bias_map(p.bias, static_cast<uint32_t>(call.bias_rows), call.bias_map, error);
      if (code != ATTNMUX_OK) return code;
    }
  }
  call.q_tiles = static_cast<int32_t>(ceil_div(p.seqlen_q * call.pack, int64_t{call.tile_rows} * kTile.cluster));
  call.items = static_cast<int32_t>(p.num_heads_q / call.pack * p.batch);
  call.section = heads_of_a_section(p, call.l2_bytes);
  const int64_t blocks = call.multiprocessors / kTile.cluster, places = int64_t{call.items} * call.q_tiles;
  call.shares = share_out(places, blocks, ceil_div(p.seqlen_kv, L::kN), call.partials != nullptr);
  if constexpr (flash_sm90_is_streamed(kFeatures)) {
    const auto code = static_cast<cudaError_t>(
        prepare_flash_sm90_stream(p, flash_sm90_step_shape(kTile), call.keys, call.queue, stream));
    ATTNMUX_CUDA_TRY(code, "looking through masks and lengths");
  }
  if (call.shares.share != 0) {
    ATTNMUX_CUDA_TRY(cudaMemsetAsync(call.arrivals, 0, kFlashSm90ArrivalBytes, stream), "clearing counters");
  }
  const cudaError_t code = launch_kernel<T, kIndex, kFeatures>(call, stream);
  ATTNMUX_CUDA_TRY(code, "launching cuda_flash_sm90");
  return ATTNMUX_OK;
}

template <typename T, FlashSm90Features kFeatures, int kIndex = 0>
attnmux_code launch_flash_sm90(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  if constexpr (kIndex + 1 < kFlashSm90TileCount) {
    if (flash_sm90_tile_index(call.p.head_dim, call.p.head_dim_v) != kIndex)
      return launch_flash_sm90<T, kFeatures, kIndex + 1>(call, stream, error);
  }
  return launch_tile<T, kIndex, kFeatures>(call, stream, error);
}

}  // namespace
}  // namespace attnmux
