// SPDX-License-Identifier: Apache-2.0
// From a call to the instance of the template that runs it.
#pragma once

#include <atomic>
#include <numeric>

#include "kernels/cuda/flash/joint/sm90_forward.cuh"
#include "kernels/cuda/runtime/cuda_error.h"

namespace attnmux::joint {
namespace {

// A section's heads are so many that its tiles fill a whole number of pairs of rounds: blocks take places forwards in
// one round and backwards in the next, so that a pair gives all of them the same work, if lengths fall evenly. And if
// they can, so few that their K and V fill no more than half of L2. What is left joins the last section, which is at
// least as long as the others.
inline void divide_into_sections(FlashSm90Call& call, int64_t blocks) {
  const Problem& p = call.p;
  const int64_t bytes = p.seqlen_kv * (p.head_dim + p.head_dim_v) * 2 * p.num_heads_kv / p.num_heads_q;
  const int64_t cached = call.l2_bytes / 2 / max_of(bytes, 1);
  const int64_t even = 2 * blocks / std::gcd(2 * blocks, int64_t{call.q_tiles});
  const int64_t heads = even * max_of(cached / even, 1);
  call.section = static_cast<int32_t>(min_of(heads, call.items));
  call.sections = static_cast<int32_t>(max_of(call.items / heads, 1));
}

// The last round is shared where that saves more steps than writing, reading and adding up the pieces costs.
inline FlashSm90Shares share_out(int64_t places, int64_t blocks, int64_t steps, bool may_share) {
  const int64_t rounds = places / blocks, left = places % blocks, share = ceil_div(left * steps, blocks);
  if (!may_share || left == 0 || share + kFlashSm90ShareCost > steps)
    return {static_cast<int32_t>(ceil_div(places, blocks)), static_cast<int32_t>(steps), 0};
  return {static_cast<int32_t>(rounds), static_cast<int32_t>(steps), static_cast<int32_t>(share)};
}

template <typename T, int kIndex, FlashSm90Features kFeatures>
cudaError_t launch_kernel(const FlashSm90Call& call, cudaStream_t stream) {
  constexpr FlashSm90Tile kTile = flash_sm90_tile(kIndex, kFeatures);
  using L = FlashSm90Layout<kTile>;
  const auto kernel = flash_sm90_forward<T, kIndex, kFeatures>;
  int64_t clusters = call.multiprocessors / kTile.cluster;
  if (call.shares.share == 0) clusters = min_of(int64_t{call.items} * call.q_tiles, clusters);
  cudaLaunchAttribute attributes[2]{};
  // The launch need not wait for the end of the kernel before, the kernel does: see flash_sm90_forward.
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(kTile.cluster), 1, 1};
  const cudaLaunchConfig_t config{static_cast<unsigned>(clusters * kTile.cluster),
                                  L::kThreads,
                                  L::kBytes,
                                  stream,
                                  attributes,
                                  kTile.cluster > 1 ? 2u : 1u};
  // Above 48 KiB a block must be allowed its shared memory, once per device. A context of the caller's own starts
  // without: then again.
  constinit static std::atomic<uint32_t> allowed{0};
  const uint32_t device = uint32_t{1} << call.p.device_id;
  for (bool first = (allowed.load(std::memory_order_relaxed) & device) == 0;; first = true) {
    if (first) {
      const cudaError_t code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes);
      if (code != cudaSuccess) return code;
    }
    const cudaError_t code = cudaLaunchKernelEx(&config, kernel, call);
    if (code == cudaSuccess && first) allowed.fetch_or(device, std::memory_order_relaxed);
    if (code != cudaSuccess) cudaGetLastError();
    if (code != cudaErrorInvalidValue || first) return code;
  }
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
      {p.q, 64, call.q_map}, {p.k, L::kN / kTile.cluster, call.k_map}, {p.v, L::kN / kTile.cluster, call.v_map}};
  for (const auto& [tensor, rows, map] : maps) {
    if (p.seqlen_kv == 0) break;  // nothing is copied
    const attnmux_code code = encode_tensor_map(tensor, rows, map, error);
    if (code != ATTNMUX_OK) return code;
  }
  call.q_tiles = static_cast<int32_t>(ceil_div(p.seqlen_q, L::kM * kTile.cluster));
  call.items = static_cast<int32_t>(p.num_heads_q * p.batch);
  const int64_t blocks = call.multiprocessors / kTile.cluster, places = int64_t{call.items} * call.q_tiles;
  divide_into_sections(call, blocks);
  call.shares = share_out(places, blocks, ceil_div(p.seqlen_kv, L::kN),
                          kFeatures == FlashSm90Features::kPlain && call.partials != nullptr);
  if constexpr (kFeatures == FlashSm90Features::kKeys) {
    const FlashSm90StepShape shape{L::kM, L::kN};
    const auto code = static_cast<cudaError_t>(prepare_flash_sm90_stream(p, shape, call.keys, call.queue, stream));
    ATTNMUX_CUDA_TRY(code, "looking through masks and lengths");
  }
  if (call.shares.share != 0) {
    ATTNMUX_CUDA_TRY(cudaMemsetAsync(call.arrivals, 0, kFlashSm90ArrivalBytes, stream), "clearing counters");
  }
  const cudaError_t code = launch_kernel<T, kIndex, kFeatures>(call, stream);
  ATTNMUX_CUDA_TRY(code, "launching cuda_flash_sm90");
  return ATTNMUX_OK;
}

// Of the tiles [kIndex, kEnd) of the table the one that fits.
template <typename T, int kIndex, int kEnd>
attnmux_code launch_flash_sm90(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  const Problem& p = call.p;
  if constexpr (kIndex + 1 < kEnd) {
    if (flash_sm90_tile_index(p.head_dim, p.head_dim_v, call.features, p.seqlen_kv) != kIndex)
      return launch_flash_sm90<T, kIndex + 1, kEnd>(call, stream, error);
  }
  if constexpr (!kFlashSm90Tiles[kIndex].only_plain) {
    if (call.features == FlashSm90Features::kPositions)
      return launch_tile<T, kIndex, FlashSm90Features::kPositions>(call, stream, error);
  }
  return launch_tile<T, kIndex, FlashSm90Features::kPlain>(call, stream, error);
}

// The same of the instances with kKeys, which are compiled in files of their own.
template <typename T, int kIndex = 0>
attnmux_code launch_flash_sm90_keys(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  constexpr auto kKeys = FlashSm90Features::kKeys;
  const Problem& p = call.p;
  if constexpr (kIndex + 1 < kFlashSm90TileCount) {
    if (flash_sm90_tile_index(p.head_dim, p.head_dim_v, kKeys, p.seqlen_kv) != kIndex)
      return launch_flash_sm90_keys<T, kIndex + 1>(call, stream, error);
  }
  if constexpr (!kFlashSm90Tiles[kIndex].only_plain) return launch_tile<T, kIndex, kKeys>(call, stream, error);
  return ATTNMUX_OK;  // the index is never one of those
}

}  // namespace
}  // namespace attnmux::joint
