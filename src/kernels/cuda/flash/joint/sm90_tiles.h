// SPDX-License-Identifier: Apache-2.0
// The tile shapes and schedules of cuda_flash_sm90's kernel whose tiles join: one table.
#pragma once

#include "kernels/kernel.h"

namespace attnmux::joint {

/// What an instance of the kernel can do.
enum class FlashSm90Features {
  kPlain,      // lengths; a scale above 0
  kPositions,  // and causal and window
  kKeys,       // and packed sequences, key padding, a dense mask
};

struct FlashSm90Tile {
  int dim, dim_v;  // the widest head_dim and head_dim of v; of narrower ones the columns behind read as zero
  int groups;      // warpgroups that compute, of 64 queries each
  int keys;        // of a step
  int stages;      // K and V tiles under way
  int cluster;     // blocks that work on neighbouring queries and share the copies of K and V
  bool ping_pong;  // groups take turns at the tensor cores, so that the softmax of one hides below the others' products
  bool lazy;       // outputs are rescaled only when a maximum has fallen far behind
  int q_stages;    // Q tiles under way
  bool trusting;   // no look for larger scores after a tile's first step, until sums grow far
  bool only_plain = false;  // another tile of the table serves other features
  bool masked = false;      // the instance with kKeys, whose producer has much to remember
};

// A thread's registers hold dim_v/2 outputs, keys/2 scores and keys/4 words of P; with two groups it has 232, with
// three 160. Shared memory is 227 KiB: 128·dim·groups + 2·stages·keys·(dim + dim_v) bytes, dims rounded up to 64.
// clang-format off
inline constexpr FlashSm90Tile kFlashSm90Tiles[] = {
    // Measured on an H200 in one run, bf16, as a multiple of the speed of a kernel that looked for the largest score in
    // every step and began each tile after the one before.
    {64, 64, 3, 80, 2, 1, true, true, 2, true, true},     // 77 keys: 1.43, with steps of 128 keys 1.25
    {64, 64, 3, 128, 2, 1, true, true, 2, true},          // 16384 keys: 1.17, without turns 1.12, not trusting 1.05
    {96, 96, 2, 128, 2, 1, true, true, 2, true},          // as 128
    {128, 128, 2, 176, 2, 1, true, true, 1, true, true},  // 16384 keys: 1.155, without turns 1.144, not trusting 1.03
    {128, 128, 2, 128, 2, 1, true, true, 2, true},        // causal, 16384 keys: 1.39, not trusting 1.26, of 144 keys 1.22
};
// clang-format on

inline constexpr int kFlashSm90TileCount = sizeof(kFlashSm90Tiles) / sizeof(FlashSm90Tile);
/// Tiles are compiled in two files per dtype, those of a head_dim up to 64 and the others: where the latter begin.
inline constexpr int kFlashSm90Begin128 = 2;
/// No tile of the instances that share tiles has steps of fewer keys.
inline constexpr int kFlashSm90FewestKeys = 80;

/// What a tile with `keys` keys costs, in keys: each step costs some more than its keys, and with one place for Q the
/// next tile begins late. Fitted to rows of 512 to 16384 keys, of which each tile was faster in some.
constexpr int64_t flash_sm90_cost(const FlashSm90Tile& tile, int64_t keys) {
  return ceil_div(keys, tile.keys) * (tile.keys + 20) + (tile.q_stages == 1 ? 40 : 0);
}

/// The place in the table of the tile for a problem: the narrowest that is wide enough, and of two of the same width
/// the one that costs less.
constexpr int flash_sm90_tile_index(int64_t head_dim, int64_t head_dim_v, FlashSm90Features features, int64_t keys) {
  int i = 0;
  while (i + 1 < kFlashSm90TileCount && (head_dim > kFlashSm90Tiles[i].dim || head_dim_v > kFlashSm90Tiles[i].dim_v))
    ++i;
  if (!kFlashSm90Tiles[i].only_plain) return i;
  if (features != FlashSm90Features::kPlain) return i + 1;
  return flash_sm90_cost(kFlashSm90Tiles[i], keys) < flash_sm90_cost(kFlashSm90Tiles[i + 1], keys) ? i : i + 1;
}

/// The tile of an instance. Blocks of a cluster walk over the same keys, which masks by position take from them.
ATTNMUX_DEVICE constexpr FlashSm90Tile flash_sm90_tile(int index, FlashSm90Features features) {
  FlashSm90Tile tile = kFlashSm90Tiles[index];
  if (features != FlashSm90Features::kPlain) tile.cluster = 1;
  // With three groups, 128 keys and the mask do not fit in a thread's registers.
  if (features == FlashSm90Features::kPositions && tile.groups == 3) tile.keys = 112;
  if (features == FlashSm90Features::kKeys) {
    tile.groups = 2;
    tile.masked = true;
  }
  return tile;
}

/// Steps that sharing a tile costs: writing, reading and adding up the pieces. Shorter tiles are not shared.
inline constexpr int64_t kFlashSm90ShareCost = 4;

/// What a piece of a tile leaves for the block that puts the pieces together: outputs, maxima and sums of all threads.
constexpr int64_t flash_sm90_partial_floats(const FlashSm90Tile& tile) {
  return int64_t{128} * tile.groups * (tile.dim_v / 2 + 4);
}

}  // namespace attnmux::joint
