// SPDX-License-Identifier: Apache-2.0
// FlashAttention-3 forward (Shah et al., "FlashAttention-3: Fast and Accurate Attention with Asynchrony and
// Low-precision", 2024, algorithm 2): a warpgroup of which one warp copies, and warpgroups that compute. Blocks stay:
// each walks over its share of the tiles.
#pragma once

#include "kernels/cuda/flash/joint/sm90_epilogue.cuh"
#include "kernels/cuda/flash/joint/sm90_producer.cuh"
#include "kernels/cuda/flash/joint/sm90_split.cuh"

namespace attnmux::joint {
namespace {

template <FlashSm90Tile kTile>
__device__ inline void init_barriers(FlashSm90Shared<kTile> shared) {
  constexpr uint32_t kWarps = 4 * kTile.groups;
  for (int stage = 0; stage < kTile.q_stages; ++stage) {
    for (int group = 0; group < kTile.groups; ++group) {
      ptx::mbarrier_init(shared.q_full(stage, group), 1);
      ptx::mbarrier_init(shared.q_empty(stage, group), 4);
    }
  }
  for (int stage = 0; stage < kTile.stages; ++stage) {
    ptx::mbarrier_init(shared.k_full(stage), 1);
    ptx::mbarrier_init(shared.k_empty(stage), kWarps * kTile.cluster);
    ptx::mbarrier_init(shared.v_full(stage), 1);
    ptx::mbarrier_init(shared.v_empty(stage), kWarps * kTile.cluster);
    ptx::mbarrier_init(shared.v_landed(stage), 1);
  }
  ptx::mbarrier_init_fence();
}

template <int kCluster>
__device__ inline void sync_blocks() {
  if constexpr (kCluster == 1) {
    __syncthreads();
  } else {
    ptx::cluster_sync();
  }
}

// kIndex is the tile's place in the table.
template <typename T, int kIndex, FlashSm90Features kFeatures>
__global__ void __launch_bounds__(FlashSm90Layout<flash_sm90_tile(kIndex, kFeatures)>::kThreads, 1)
    flash_sm90_forward(const __grid_constant__ FlashSm90Call call) {
  constexpr FlashSm90Tile kTile = flash_sm90_tile(kIndex, kFeatures);
  using L = FlashSm90Layout<kTile>;
  extern __shared__ __align__(1024) unsigned char memory[];
  const FlashSm90Shared<kTile> shared{static_cast<uint32_t>(__cvta_generic_to_shared(memory))};
  const int warp = ptx::uniform(static_cast<int>(threadIdx.x) / 32);
  const int rank = kTile.cluster == 1 ? 0 : static_cast<int>(blockIdx.x) % kTile.cluster;
  if (threadIdx.x == 0) {
    init_barriers(shared);
    ptx::prefetch_tensor_map(call.q_map);
    ptx::prefetch_tensor_map(call.k_map);
    ptx::prefetch_tensor_map(call.v_map);
  }
  sync_blocks<kTile.cluster>();
  // Up to here it may run beside the end of the kernel before; a kernel that follows may do the same.
  ptx::wait_for_grid_before();
  ptx::let_next_grid_start();

  if (warp < 4) {
    ptx::give_registers<L::kGiven>();
    if (warp == 0) {
      Sm90Producer<kTile, kFeatures> producer{call, shared, static_cast<int>(threadIdx.x), rank};
      if constexpr (kFeatures == FlashSm90Features::kKeys) {
        producer.run_queue();
      } else {
        producer.run_turns();
      }
    }
  } else {
    ptx::take_registers<L::kTaken>();
    Sm90Consumer<T, kTile, kFeatures> consumer(call, shared, rank, warp / 4 - 1, static_cast<int>(threadIdx.x) % 32);
    // The last group lets the first begin.
    if (consumer.group == kTile.groups - 1) consumer.hand_turn_on();
    consumer.tiles();
  }
  // No block of a cluster ends while another may still copy into it, or tell it something.
  if constexpr (kTile.cluster > 1) {
    __syncwarp();
    sync_blocks<kTile.cluster>();
  }
}

}  // namespace
}  // namespace attnmux::joint
