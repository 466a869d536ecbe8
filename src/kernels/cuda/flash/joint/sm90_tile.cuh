// SPDX-License-Identifier: Apache-2.0
// Tile shapes, and what lies where in shared memory.
//
// A tile of R rows is pages of 64 columns; a row of a page is 128 bytes, whose eight pieces of 16 bytes are swizzled by
// the row, as the copy engine writes them and wgmma reads them.
#pragma once

#include "kernels/cuda/flash/joint/sm90.h"
#include "kernels/cuda/flash/joint/sm90_tiles.h"
#include "kernels/cuda/ptx/wgmma.cuh"

namespace attnmux::joint {

namespace {

template <FlashSm90Tile kTile>
struct FlashSm90Layout {
  static constexpr int kM = 64 * kTile.groups, kN = kTile.keys, kStages = kTile.stages;
  static constexpr int kThreads = 128 * (kTile.groups + 1);
  static constexpr int kPages = (kTile.dim + 63) / 64, kPagesV = (kTile.dim_v + 63) / 64;
  static constexpr uint32_t kQPage = kM * 128, kKvPage = kN * 128;
  static constexpr uint32_t kQBytes = kPages * kQPage, kKBytes = kPages * kKvPage, kVBytes = kPagesV * kKvPage;
  static_assert(kN % 16 == 0 && kKvPage % 1024 == 0, "pages are whole swizzle atoms, steps of P·V whole products");
  // Barriers come first, so that an array that grows out of its place shows in the tiles.
  static constexpr uint32_t kBarrierBytes = 1024;
  static constexpr uint32_t kQ = kBarrierBytes, kK = kQ + kTile.q_stages * kQBytes, kV = kK + kStages * kKBytes;
  static constexpr uint32_t kBytes = kV + kStages * kVBytes;
  // The one trial of pairs of blocks that share copies gave wrong results, whose cause is not known.
  static_assert(kTile.cluster == 1, "sharing copies between blocks is not right yet");
  static_assert(kBytes <= 227 * 1024, "more shared memory than a block can have");

  // What is announced of a tile is read again when its outputs are stored. Meanwhile a group may be further by as many
  // tiles as there are places for K (tiles may have one step), and the producer by those of Q.
  static constexpr int kAnnouncements = 8;
  static_assert(kStages + kTile.q_stages + 3 <= kAnnouncements, "an announcement must outlive its tile");
  static_assert(kTile.q_stages <= 2 && kTile.groups <= 4 && kStages <= 4, "more barriers than there is room for");

  // Registers of a thread: a block has 65536, and all its threads start with the same number.
  static constexpr int kGiven = kTile.groups == 3 ? 32 : kTile.masked ? 72 : 40;
  static constexpr int kTaken = kTile.groups == 3 ? 160 : (504 - kGiven) / 2;
};

// Addresses of barriers and tiles of a block.
template <FlashSm90Tile kTile>
struct FlashSm90Shared {
  using L = FlashSm90Layout<kTile>;
  uint32_t base;
  __device__ uint32_t q(int stage) const { return base + L::kQ + static_cast<uint32_t>(stage) * L::kQBytes; }
  __device__ uint32_t k(int stage) const { return base + L::kK + static_cast<uint32_t>(stage) * L::kKBytes; }
  __device__ uint32_t v(int stage) const { return base + L::kV + static_cast<uint32_t>(stage) * L::kVBytes; }
  __device__ uint32_t word(int group) const { return base + 128 + static_cast<uint32_t>(group) * 4; }
  // What the producer says of a tile: 64 bytes.
  __device__ uint32_t announcement(int i) const {
    return base + 512 + static_cast<uint32_t>(i % L::kAnnouncements) * 64;
  }
  // "full" ends a phase when a tile has arrived, "empty" when every warp has read it. Each group has its own rows of Q.
  __device__ uint32_t q_full(int stage, int group) const { return base + static_cast<uint32_t>(stage * 4 + group) * 8; }
  __device__ uint32_t q_empty(int stage, int group) const { return q_full(stage, group) + 64; }
  __device__ uint32_t k_full(int stage) const { return base + 256 + static_cast<uint32_t>(stage) * 64; }
  __device__ uint32_t k_empty(int stage) const { return k_full(stage) + 8; }
  __device__ uint32_t v_full(int stage) const { return k_full(stage) + 16; }
  __device__ uint32_t v_empty(int stage) const { return k_full(stage) + 24; }
  __device__ uint32_t v_landed(int stage) const { return k_full(stage) + 32; }  // before its edge is cleared
  __device__ uint32_t k_note(int stage) const { return k_full(stage) + 40; }    // which step the K tile is
};

// A position in the ring of stages. The phase's parity flips each time around.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if constexpr (kStages == 1) {
      parity ^= 1;
    } else {
      const bool wraps = stage == kStages - 1;
      stage = wraps ? 0 : stage + 1;
      parity ^= wraps ? 1u : 0u;
    }
  }
};

}  // namespace
}  // namespace attnmux::joint
