// SPDX-License-Identifier: Apache-2.0
// The kernel of sm90_fp8.h: FlashAttention-3 forward on E4M3 numbers (sm90_forward.cuh).
#pragma once

#include "kernels/cuda/flash/sm90_forward.cuh"
#include "kernels/cuda/flash/sm90_fp8_consumer.cuh"

namespace attnmux {
namespace {

template <FlashSm90Tile kTile>
__device__ inline void init_fp8_barriers(Sm90Fp8Shared<kTile> shared) {
  constexpr uint32_t kWarps = 4 * kTile.groups;
  ptx::mbarrier_init(shared.q_full(), 1);
  ptx::mbarrier_init(shared.q_empty(), kWarps);
  for (int stage = 0; stage < kTile.stages; ++stage) {
    ptx::mbarrier_init(shared.k_full(stage), 1);
    ptx::mbarrier_init(shared.k_empty(stage), kWarps);
    ptx::mbarrier_init(shared.v_full(stage), 1);
    ptx::mbarrier_init(shared.v_empty(stage), kWarps);
  }
  ptx::mbarrier_init_fence();
}

// kIndex is the tile's place in the table.
template <int kIndex, FlashSm90Features kFeatures>
__global__ void __launch_bounds__(FlashSm90Layout<kFlashSm90Fp8Tiles[kIndex]>::kThreads, 1)
    flash_sm90_fp8(const __grid_constant__ FlashSm90Call call) {
  constexpr FlashSm90Tile kTile = kFlashSm90Fp8Tiles[kIndex];
  using L = FlashSm90Layout<kTile>;
  extern __shared__ __align__(1024) unsigned char memory[];
  const Sm90Fp8Shared<kTile> shared{static_cast<uint32_t>(__cvta_generic_to_shared(memory))};
  const int warp = ptx::uniform(static_cast<int>(threadIdx.x) / 32);
  if (threadIdx.x == 0) init_fp8_barriers(shared);
  __syncthreads();

  if (warp < 4) {
    ptx::give_registers<L::kGiven>();
    if (warp == 0) {
      Sm90Fp8Producer<kTile> producer{call, shared, static_cast<int>(threadIdx.x), {}, {}, {}};
      const auto turns = turns_of_block<1, kFeatures>(call);
      for (int i = 0; i < turns.count(); ++i) producer.tile(sm90_work<kTile, kFeatures>(call, turns.turn(i), 0));
    }
  } else {
    ptx::take_registers<L::kTaken>();
    Sm90Fp8Consumer<kTile, kFeatures> consumer(call, shared, warp / 4 - 1, static_cast<int>(threadIdx.x) % 128);
    // The last group lets the first begin.
    if (consumer.group == kTile.groups - 1) consumer.hand_turn_on();
#pragma unroll 1
    for (int i = 0;; ++i) {
      const auto turns = turns_of_block<1, kFeatures>(call);
      if (i >= turns.count()) break;
      consumer.steps(sm90_work<kTile, kFeatures>(call, turns.turn(i), 0));
      consumer.finish(turns_of_block<1, kFeatures>(call).turn(i));
    }
  }
}

}  // namespace
}  // namespace attnmux
