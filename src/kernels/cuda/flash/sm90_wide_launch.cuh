// SPDX-License-Identifier: Apache-2.0
// From a call to the instance of the kernel of sm90_wide.h that runs it.
#pragma once

#include "kernels/cuda/flash/sm90_launch.cuh"
#include "kernels/cuda/flash/sm90_wide_forward.cuh"

namespace attnmux {
namespace {

template <typename T, int kIndex, FlashSm90Features kFeatures>
cudaError_t launch_wide_kernel(const FlashSm90Call& call, cudaStream_t stream) {
  constexpr FlashSm90Tile kTile = flash_sm90_wide_tile(kIndex, kFeatures);
  using L = FlashSm90Layout<kTile>;
  const auto kernel = flash_sm90_wide<T, kIndex, kFeatures>;
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
attnmux_code launch_wide_tile(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  constexpr FlashSm90Tile kTile = flash_sm90_wide_tile(kIndex, kFeatures);
  using L = FlashSm90Layout<kTile>;
  const Problem& p = call.p;
  const struct {
    const Tensor& tensor;
    uint32_t rows;
    TensorMap& map;
  } maps[] = {{p.q, L::kM, call.q_map}, {p.k, L::kN / kTile.cluster, call.k_map}, {p.v, L::kChunkKeys, call.v_map}};
  for (const auto& [tensor, rows, map] : maps) {
    if (p.seqlen_kv == 0) break;  // nothing is copied
    const attnmux_code code = encode_tensor_map(tensor, rows, map, error);
    if (code != ATTNMUX_OK) return code;
  }
  call.pack = 1;
  call.tile_rows = L::kM;
  call.q_tiles = static_cast<int32_t>(ceil_div(p.seqlen_q, L::kM * kTile.cluster));
  call.items = static_cast<int32_t>(p.num_heads_q * p.batch);
  call.section = heads_of_a_section(p, call.l2_bytes);
  const int64_t blocks = call.multiprocessors / kTile.cluster, places = int64_t{call.items} * call.q_tiles;
  call.shares = share_out(places, blocks, ceil_div(p.seqlen_kv, L::kN),
                          kFeatures == FlashSm90Features::kPlain && call.partials != nullptr);
  if (call.shares.share != 0) {
    ATTNMUX_CUDA_TRY(cudaMemsetAsync(call.arrivals, 0, kFlashSm90ArrivalBytes, stream), "clearing counters");
  }
  const cudaError_t code = launch_wide_kernel<T, kIndex, kFeatures>(call, stream);
  ATTNMUX_CUDA_TRY(code, "launching cuda_flash_sm90");
  return ATTNMUX_OK;
}

template <typename T, int kIndex>
attnmux_code launch_wide_index(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  // Lengths of packed sequences are positions too.
  return call.features == FlashSm90Features::kPlain
             ? launch_wide_tile<T, kIndex, FlashSm90Features::kPlain>(call, stream, error)
             : launch_wide_tile<T, kIndex, FlashSm90Features::kPositions>(call, stream, error);
}

template <typename T>
attnmux_code launch_flash_sm90_wide(FlashSm90Call& call, cudaStream_t stream, attnmux_error* error) {
  return flash_sm90_wide_index(call.p.head_dim, call.p.head_dim_v) == 0 ? launch_wide_index<T, 0>(call, stream, error)
                                                                        : launch_wide_index<T, 1>(call, stream, error);
}

}  // namespace
}  // namespace attnmux
