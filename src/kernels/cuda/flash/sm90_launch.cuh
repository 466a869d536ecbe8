// SPDX-License-Identifier: Apache-2.0
// From a call to the instance of the template that runs it.
#pragma once

#include <atomic>

#include "kernels/cuda/flash/sm90_forward.cuh"
#include "kernels/cuda/runtime/cuda_error.h"

namespace attnmux {
namespace {

// For each batch entry the first key that its padding leaves and the one behind the last, so that tiles of padding are
// never loaded.
__global__ void find_attended_keys(const __grid_constant__ Tensor padding, int keys, int32_t* attended) {
  int lowest = INT_MAX, behind = 0;
  for (int key = static_cast<int>(threadIdx.x); key < keys; key += static_cast<int>(blockDim.x)) {
    if (!attends(padding, blockIdx.x * padding.strides[0] + key * padding.strides[1])) continue;
    lowest = min(lowest, key);
    behind = key + 1;
  }
  __shared__ int bounds[2];
  if (threadIdx.x == 0) {
    bounds[0] = INT_MAX;
    bounds[1] = 0;
  }
  __syncthreads();
  atomicMin(&bounds[0], lowest);
  atomicMax(&bounds[1], behind);
  __syncthreads();
  if (threadIdx.x < 2) attended[2 * blockIdx.x + threadIdx.x] = bounds[threadIdx.x];
}

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
  const struct {
    const Tensor& tensor;
    uint32_t rows;
    TensorMap& map;
  } maps[] = {
      {p.q, L::kM, call.q_map}, {p.k, L::kN / kTile.cluster, call.k_map}, {p.v, L::kN / kTile.cluster, call.v_map}};
  for (const auto& [tensor, rows, map] : maps) {
    if (p.seqlen_kv == 0) break;  // nothing is copied
    const attnmux_code code = encode_tensor_map(tensor, rows, map, error);
    if (code != ATTNMUX_OK) return code;
  }
  call.q_tiles = static_cast<int32_t>(ceil_div(p.seqlen_q, L::kM * kTile.cluster));
  call.items = static_cast<int32_t>(p.num_heads_q * p.batch);
  call.section = heads_of_a_section(p, call.l2_bytes);
  const int64_t blocks = call.multiprocessors / kTile.cluster, places = int64_t{call.items} * call.q_tiles;
  call.shares = share_out(places, blocks, ceil_div(p.seqlen_kv, L::kN),
                          kFeatures == FlashSm90Features::kPlain && call.partials != nullptr);
  if (call.attended != nullptr) {
    find_attended_keys<<<static_cast<unsigned>(p.batch), 256, 0, stream>>>(p.key_padding, static_cast<int>(p.seqlen_kv),
                                                                           call.attended);
    ATTNMUX_CUDA_TRY(cudaGetLastError(), "looking through mask.key_padding");
  }
  if (call.shares.share != 0) {
    ATTNMUX_CUDA_TRY(cudaMemsetAsync(call.arrivals, 0, kFlashSm90ArrivalBytes, stream), "clearing counters");
  }
  const cudaError_t code = launch_kernel<T, kIndex, kFeatures>(call, stream);
  ATTNMUX_CUDA_TRY(code, "launching cuda_flash_sm90");
  return ATTNMUX_OK;
}

template <typename T, int kIndex = 0>
attnmux_code launch_flash_sm90(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  const Problem& p = call.p;
  if constexpr (kIndex + 1 < kFlashSm90TileCount) {
    if (flash_sm90_tile_index(p.head_dim, p.head_dim_v) != kIndex)
      return launch_flash_sm90<T, kIndex + 1>(call, stream, error);
  }
  switch (call.features) {
    case FlashSm90Features::kPlain:
      return launch_tile<T, kIndex, FlashSm90Features::kPlain>(call, stream, error);
    case FlashSm90Features::kPositions:
      return launch_tile<T, kIndex, FlashSm90Features::kPositions>(call, stream, error);
    default:
      return launch_tile<T, kIndex, FlashSm90Features::kAll>(call, stream, error);
  }
}

}  // namespace
}  // namespace attnmux
