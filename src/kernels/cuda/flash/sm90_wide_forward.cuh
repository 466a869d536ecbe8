// SPDX-License-Identifier: Apache-2.0
// The kernel of sm90_wide.h: algorithm 2 of FlashAttention-3 with its consumers split by what they do instead of by
// queries. Blocks stay: each walks over its share of the tiles.
#pragma once

#include "kernels/cuda/flash/sm90_forward.cuh"
#include "kernels/cuda/flash/sm90_wide_copies.cuh"
#include "kernels/cuda/flash/sm90_wide_output.cuh"
#include "kernels/cuda/flash/sm90_wide_scores.cuh"

namespace attnmux {
namespace {

template <FlashSm90Tile kTile>
__device__ inline void init_wide_barriers(Sm90WideShared<kTile> shared) {
  ptx::mbarrier_init(shared.q_full(), 1);
  ptx::mbarrier_init(shared.q_empty(), 4);
  for (int slot = 0; slot < 2; ++slot) {
    ptx::mbarrier_init(shared.p_full(slot), 4);
    ptx::mbarrier_init(shared.p_empty(slot), 8);
  }
  for (int stage = 0; stage < kTile.stages; ++stage) {
    ptx::mbarrier_init(shared.k_full(stage), 1);
    ptx::mbarrier_init(shared.k_empty(stage), 4 * kTile.cluster);
    ptx::mbarrier_init(shared.v_full(stage), 1);
    ptx::mbarrier_init(shared.v_empty(stage), 8 * kTile.cluster);
    ptx::mbarrier_init(shared.v_landed(stage), 1);
  }
  ptx::mbarrier_init_fence();
}

// kIndex is the tile's place in the table.
template <typename T, int kIndex, FlashSm90Features kFeatures>
__global__ void __launch_bounds__(4 * 128, 1) flash_sm90_wide(const __grid_constant__ FlashSm90Call call) {
  constexpr FlashSm90Tile kTile = flash_sm90_wide_tile(kIndex, kFeatures);
  using L = FlashSm90Layout<kTile>;
  constexpr int kCluster = kTile.cluster;
  extern __shared__ __align__(1024) unsigned char memory[];
  const Sm90WideShared<kTile> shared{static_cast<uint32_t>(__cvta_generic_to_shared(memory))};
  const int warp = ptx::uniform(static_cast<int>(threadIdx.x) / 32), thread = static_cast<int>(threadIdx.x) % 128;
  const int rank = kCluster == 1 ? 0 : static_cast<int>(blockIdx.x) % kCluster;
  if (threadIdx.x == 0) init_wide_barriers(shared);
  sync_blocks<kCluster>();

  // The warps of the block that take part walk over the same tiles.
  const auto for_tiles = [&](const auto& act) {
#pragma unroll 1
    for (int i = 0;; ++i) {
      const auto turns = turns_of_block<kCluster, kFeatures>(call);
      if (i >= turns.count()) break;
      act(turns.turn(i));
    }
  };
  if (warp < 4) {
    ptx::give_registers<L::kCopying>();
    if (warp == 0) {
      Sm90WideKeys<kTile, kFeatures> keys{call, shared, thread % 32, rank, {}, {}};
      for_tiles([&](const Sm90Turn& turn) { keys.tile(sm90_work<kTile, kFeatures>(call, turn, rank)); });
    } else if (warp == 1) {
      Sm90WideValues<kTile, kFeatures> values{call, shared, thread % 32, rank, {}};
      for_tiles([&](const Sm90Turn& turn) { values.tile(sm90_work<kTile, kFeatures>(call, turn, rank)); });
    }
  } else if (warp < 8) {
    ptx::take_registers<L::kScoring>();
    Sm90WideScores<T, kTile, kFeatures> scores(call, shared, thread);
    for_tiles([&](const Sm90Turn& turn) { scores.tile(sm90_work<kTile, kFeatures>(call, turn, rank)); });
  } else {
    ptx::take_registers<L::kSumming>();
    Sm90WideOutput<T, kTile, kFeatures> output(call, shared, rank, warp / 4 - 2, thread);
    for_tiles([&](const Sm90Turn& turn) {
      output.tile(sm90_work<kTile, kFeatures>(call, turn, rank));
      output.finish(turn);
    });
  }
  // No block of a cluster ends while another may still copy into it, or tell it something.
  if constexpr (kCluster > 1) {
    __syncwarp();
    sync_blocks<kCluster>();
  }
}

}  // namespace
}  // namespace attnmux
