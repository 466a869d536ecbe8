// SPDX-License-Identifier: Apache-2.0
// FlashAttention-3 forward (Shah et al., "FlashAttention-3: Fast and Accurate Attention with Asynchrony and
// Low-precision", 2024, algorithm 2): a warpgroup of which one warp copies, and warpgroups that compute. Blocks stay:
// each walks over its share of the tiles.
#pragma once

#include "kernels/cuda/flash/sm90_epilogue.cuh"
#include "kernels/cuda/flash/sm90_feed.cuh"
#include "kernels/cuda/flash/sm90_producer.cuh"
#include "kernels/cuda/flash/sm90_split.cuh"

namespace attnmux {
namespace {

template <FlashSm90Tile kTile>
__device__ inline void init_barriers(FlashSm90Shared<kTile> shared) {
  constexpr uint32_t kWarps = 4 * kTile.groups;
  ptx::mbarrier_init(shared.q_full(), 1);
  ptx::mbarrier_init(shared.q_empty(), kWarps);
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

// Asks for the block's number behind the compiler's back, so that what follows from it is computed again, once per
// tile, and holds no registers during the steps.
template <int kCluster, FlashSm90Features kFeatures>
__device__ inline Sm90Turns<kFeatures> turns_of_block(const FlashSm90Call& call) {
  int block = static_cast<int>(blockIdx.x);
  asm volatile("" : "+r"(block));
  return {call.shares, block / kCluster, static_cast<int>(gridDim.x) / kCluster, call.items * call.q_tiles};
}

template <FlashSm90Tile kTile>
__device__ inline Sm90BiasSource<kTile> bias_source(const FlashSm90Call& call, FlashSm90Shared<kTile> shared) {
  const int thread = static_cast<int>(threadIdx.x);
  return {call, {shared, call.p.bias.dtype == ATTNMUX_FP32}, thread / 32, thread % 32};
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
  constexpr bool kStreamed = flash_sm90_is_streamed(kFeatures);
  if (threadIdx.x == 0) {
    if constexpr (kStreamed) Sm90Board<kTile>::init(shared);
    if constexpr (kTile.hooks) Sm90BiasRing<kTile>::init(call, shared);
    init_barriers(shared);
  }
  sync_blocks<kTile.cluster>();

  if (warp < 4) {
    ptx::give_registers<L::kGiven>();
    if (warp == 0) {
      Sm90Producer<kTile, kFeatures> producer{call, shared, static_cast<int>(threadIdx.x), rank, {}, {}, {}};
      if constexpr (kStreamed) {
        Sm90Feed<kTile, kFeatures>{producer, {shared, {}}, bias_source(call, shared)}.run();
      } else {
        const auto turns = turns_of_block<kTile.cluster, kFeatures>(call);
        for (int i = 0; i < turns.count(); ++i) producer.tile(sm90_work<kTile, kFeatures>(call, turns.turn(i), rank));
      }
    } else if (kTile.hooks && given(call.p.bias) && call.bias_boxes == 0) {
      bias_source(call, shared).help();
    }
  } else {
    ptx::take_registers<L::kTaken>();
    Sm90Consumer<T, kTile, kFeatures> consumer(call, shared, rank, warp / 4 - 1, static_cast<int>(threadIdx.x) % 128);
    // The last group lets the first begin.
    if (consumer.group == kTile.groups - 1) consumer.hand_turn_on();
    if constexpr (kStreamed) {
      consumer.follow({shared, {}});
    } else {
#pragma unroll 1
      for (int i = 0;; ++i) {
        const auto turns = turns_of_block<kTile.cluster, kFeatures>(call);
        if (i >= turns.count()) break;
        consumer.steps(sm90_work<kTile, kFeatures>(call, turns.turn(i), rank));
        consumer.finish(turns_of_block<kTile.cluster, kFeatures>(call).turn(i));
      }
    }
  }
  // No block of a cluster ends while another may still copy into it, or tell it something.
  if constexpr (kTile.cluster > 1) {
    __syncwarp();
    sync_blocks<kTile.cluster>();
  }
}

}  // namespace
}  // namespace attnmux
