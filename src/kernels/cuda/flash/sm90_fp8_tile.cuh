// SPDX-License-Identifier: Apache-2.0
// What lies where in shared memory in the kernel of sm90_fp8.h. Q and K are pages of 128 columns, transposed V is rows
// of the keys of a step; rows are swizzled.
#pragma once

#include "kernels/cuda/flash/sm90_fp8.h"
#include "kernels/cuda/flash/sm90_schedule.cuh"

namespace attnmux {
namespace {

// The schedule asks for queries and keys of a tile.
template <FlashSm90Tile kTile>
  requires(kTile.narrow)
struct FlashSm90Layout<kTile> {
  static constexpr int kM = 64 * kTile.groups, kN = kTile.keys, kStages = kTile.stages;
  static constexpr int kThreads = 128 * (kTile.groups + 1);
  static constexpr int kPages = (kTile.dim + 127) / 128;
  static constexpr uint32_t kQPage = kM * 128, kKPage = kN * 128;
  // A thread has registers for the sums of all columns, or of a quarter of them at a time.
  static constexpr int kParts = kTile.dim_v > 128 ? kTile.dim_v / 64 : 1;
  static constexpr uint32_t kQBytes = kPages * kQPage, kKBytes = kPages * kKPage;
  static constexpr uint32_t kVBytes = kTile.dim_v * kN;
  static_assert(kN == 64 || kN == 128, "a row of V is swizzled whole");
  static_assert(kFlashSm90ValueBlock % kN == 0 && kTile.cluster == 1);
  static constexpr uint32_t kQ = 1024, kK = kQ + kQBytes, kV = kK + kStages * kKBytes;
  static constexpr uint32_t kBytes = kV + kStages * kVBytes;
  static_assert(kBytes <= 227 * 1024, "more shared memory than a block can have");
  static constexpr int kGiven = 24, kTaken = 240;  // registers of a thread
};

// Where the keys of a sequence begin in the copy of V.
__device__ inline int first_value(const Sm90Sequence& s, bool packed, int b) {
  constexpr int kBlock = static_cast<int>(kFlashSm90ValueBlock);
  return packed ? (s.kv_row / kBlock + b) * kBlock : 0;
}

// The order in which the copy of V has the keys of each 16, by which P needs no shuffle: a thread has of the scores the
// keys 2t, 2t + 1, 8 + 2t and 9 + 2t, and gives the product four in a row.
__device__ constexpr int value_order(int position) { return position / 4 * 2 + position % 2 + position % 4 / 2 * 8; }

}  // namespace
}  // namespace attnmux
