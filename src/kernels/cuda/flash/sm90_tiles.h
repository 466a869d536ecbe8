// SPDX-License-Identifier: Apache-2.0
// The tile shapes and schedules of cuda_flash_sm90: one table.
#pragma once

#include "kernels/cuda/flash/sm90_stream.h"
#include "kernels/kernel.h"

namespace attnmux {

/// What an instance of the kernel can do.
enum class FlashSm90Features {
  kPlain,      // lengths; a scale above 0
  kPositions,  // and causal and window
  kKeys,       // and packed sequences, key padding, a dense mask
  kAll,        // and softcap, bias, any scale
};

struct FlashSm90Tile {
  int dim, dim_v;  // the widest head_dim and head_dim of v; of narrower ones the columns behind read as zero
  int groups;      // warpgroups that compute, of 64 queries each
  int keys;        // of a step
  int stages;      // K and V tiles under way
  int cluster;     // blocks that work on neighbouring queries and share the copies of K and V
  bool ping_pong;  // groups take turns at the tensor cores, so that the softmax of one hides below the others' products
  bool lazy;       // outputs are rescaled only when a maximum has fallen far behind
  bool hooks = false;   // the instance with hooks, which has room for the bias of a step in shared memory
  bool narrow = false;  // of 8-bit elements (sm90_fp8.h)
};

// A thread's registers hold dim_v/2 outputs, keys/2 scores and keys/4 words of P; with two groups it has 232, with
// three 160. Shared memory is 227 KiB: 128·dim·groups + 2·stages·keys·(dim + dim_v) bytes, dims rounded up to 64.
// clang-format off
inline constexpr FlashSm90Tile kFlashSm90Tiles[] = {
    // Measured on an H200 in one run with cuDNN 9.19, bf16, as a multiple of its speed.
    {64, 64, 3, 128, 2, 1, false, false},    // 16384 keys: 1.113, with turns 1.074; 4096 keys: 0.964 and 0.970
    {96, 96, 2, 176, 2, 1, true, false},     // as 128
    {128, 128, 2, 176, 2, 1, false, false},  // 16384 keys: 1.045, with turns 1.006; 4352 keys: 1.079 and 1.093
    {192, 128, 2, 128, 2, 1, true, false},   // the most keys of which two stages fit in shared memory
    {192, 192, 2, 112, 2, 1, true, false},   // the same
    {256, 256, 2, 80, 2, 1, true, true},     // 16384 keys: 1.213, not lazily 1.120; more keys do not fit in registers
};
// clang-format on

inline constexpr int kFlashSm90TileCount = sizeof(kFlashSm90Tiles) / sizeof(FlashSm90Tile);

/// Where in the table the first tile is that is wide enough.
constexpr int flash_sm90_tile_index(int64_t head_dim, int64_t head_dim_v) {
  int i = 0;
  while (i + 1 < kFlashSm90TileCount && (head_dim > kFlashSm90Tiles[i].dim || head_dim_v > kFlashSm90Tiles[i].dim_v))
    ++i;
  return i;
}

/// The tile of an instance. Blocks of a cluster walk over the same keys, which masks by position take from them; hooks
/// need registers, so their tiles have fewer keys.
ATTNMUX_DEVICE constexpr FlashSm90Tile flash_sm90_tile(int index, FlashSm90Features features) {
  FlashSm90Tile tile = kFlashSm90Tiles[index];
  if (features != FlashSm90Features::kPlain) tile.cluster = 1;
  if (features == FlashSm90Features::kAll) {
    tile.groups = 2;
    tile.hooks = true;
    tile.keys = tile.dim <= 192 ? 64 : 32;
  }
  return tile;
}

/// Does the producer tell the consumers of an instance which tiles and which keys they get?
ATTNMUX_DEVICE constexpr bool flash_sm90_is_streamed(FlashSm90Features features) {
  return features == FlashSm90Features::kKeys || features == FlashSm90Features::kAll;
}

/// By what masks are looked at for instances of this tile (sm90_stream.h).
constexpr FlashSm90StepShape flash_sm90_step_shape(const FlashSm90Tile& tile) {
  return {int64_t{64} * tile.groups, tile.keys};
}

/// Rows of a tile that are used where `pack` heads share them.
constexpr int64_t flash_sm90_tile_rows(const FlashSm90Tile& tile, int64_t pack) {
  return 64 * tile.groups / pack * pack;
}

/// Steps that sharing a tile costs: writing, reading and adding up the pieces. Shorter tiles are not shared.
inline constexpr int64_t kFlashSm90ShareCost = 4;

/// What a piece of a tile leaves for the block that puts the pieces together: outputs, maxima and sums of all threads.
constexpr int64_t flash_sm90_partial_floats(const FlashSm90Tile& tile) {
  return int64_t{128} * tile.groups * (tile.dim_v / 2 + 4);
}

}  // namespace attnmux
