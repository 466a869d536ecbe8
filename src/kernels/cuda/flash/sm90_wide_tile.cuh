// SPDX-License-Identifier: Apache-2.0
// What lies where in shared memory in the kernel of sm90_wide.h.
//
// K arrives in chunks of 64 columns of all keys of a step, V in chunks of all columns of kChunkKeys keys; both are
// pages as in sm90_tile.cuh, and so are Q and P.
#pragma once

#include "kernels/cuda/flash/sm90_schedule.cuh"
#include "kernels/cuda/flash/sm90_wide.h"
#include "kernels/cuda/ptx/mbarrier.cuh"

namespace attnmux {
namespace {

// The schedule asks for queries and keys of a tile.
template <FlashSm90Tile kTile>
  requires(kTile.dim > kFlashSm90WideFrom)
struct FlashSm90Layout<kTile> {
  static constexpr int kM = kFlashSm90WideRows, kN = kTile.keys, kStages = kTile.stages;
  static constexpr int kThreads = 4 * 128;          // copies, scores, two halves of the output
  static constexpr int kColumns = kTile.dim_v / 2;  // of the output, per warpgroup
  static constexpr int kChunkKeys = 16;             // one step of P·V
  static constexpr int kPages = kTile.dim / 64, kPagesV = kTile.dim_v / 64, kPagesP = (kN + 63) / 64;
  static constexpr uint32_t kQPage = kM * 128, kKBytes = kN * 128, kVPage = kChunkKeys * 128;
  static constexpr uint32_t kPBytes = kPagesP * kQPage, kVBytes = kPagesV * kVPage;
  static_assert(kN % 16 == 0 && kKBytes % (1024 * kTile.cluster) == 0, "pages are whole swizzle atoms");
  static_assert(kTile.dim_v % 128 == 0, "warpgroups share the pages of V");
  // Barriers and what the rows of a tile tell the output come first.
  static constexpr uint32_t kRowsAt = 1024, kRowBytes = kM * 8;
  static constexpr uint32_t kQ = 2048, kP = kQ + kPages * kQPage, kK = kP + 2 * kPBytes;
  static constexpr uint32_t kV = kK + kStages * kKBytes, kBytes = kV + kStages * kVBytes;
  static_assert(kBytes <= 227 * 1024, "more shared memory than a block can have");
  static_assert(128 + kStages * 64 <= kRowsAt && 2 * kRowBytes <= kQ - kRowsAt);
  static constexpr int kCopying = 32, kScoring = 144, kSumming = 168;  // registers of a thread
};

template <FlashSm90Tile kTile>
struct Sm90WideShared {
  using L = FlashSm90Layout<kTile>;
  uint32_t base;
  __device__ uint32_t q() const { return base + L::kQ; }
  __device__ uint32_t p(int slot) const { return base + L::kP + static_cast<uint32_t>(slot) * L::kPBytes; }
  __device__ uint32_t k(int stage) const { return base + L::kK + static_cast<uint32_t>(stage) * L::kKBytes; }
  __device__ uint32_t v(int stage) const { return base + L::kV + static_cast<uint32_t>(stage) * L::kVBytes; }
  // Two floats per row of the tile: what the output shrinks by; at a tile's end, maximum and sum.
  __device__ uint32_t row(int slot, int i) const {
    return base + L::kRowsAt + static_cast<uint32_t>(slot) * L::kRowBytes + static_cast<uint32_t>(i) * 8;
  }
  __device__ uint32_t word(int half) const { return base + 64 + static_cast<uint32_t>(half) * 4; }
  // "full" ends a phase when data has arrived, "empty" when every warp has read it.
  __device__ uint32_t q_full() const { return base; }
  __device__ uint32_t q_empty() const { return base + 8; }
  __device__ uint32_t p_full(int slot) const { return base + 16 + static_cast<uint32_t>(slot) * 16; }
  __device__ uint32_t p_empty(int slot) const { return p_full(slot) + 8; }
  __device__ uint32_t k_full(int stage) const { return base + 128 + static_cast<uint32_t>(stage) * 64; }
  __device__ uint32_t k_empty(int stage) const { return k_full(stage) + 8; }
  __device__ uint32_t v_full(int stage) const { return k_full(stage) + 16; }
  __device__ uint32_t v_empty(int stage) const { return k_full(stage) + 24; }
  __device__ uint32_t v_landed(int stage) const { return k_full(stage) + 32; }  // before its edge is cleared
};

// A warp has read a chunk: all blocks that copy parts of it hear of that.
template <int kCluster>
__device__ inline void release_chunk(uint32_t empty, int lane) {
  if constexpr (kCluster == 1) {
    if (lane == 0) ptx::mbarrier_arrive(empty);
  } else {
    if (lane < kCluster) ptx::mbarrier_arrive_in_cluster(empty, static_cast<uint32_t>(lane));
  }
}

}  // namespace
}  // namespace attnmux
