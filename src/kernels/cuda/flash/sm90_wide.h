// SPDX-License-Identifier: Apache-2.0
// head_dim 264 to 512 on Hopper, as in the attention of image decoders. The output of 64 queries is all that the
// registers of a multiprocessor hold, and it takes two warpgroups; so a third one computes scores and softmax for both,
// and hands probabilities on through shared memory.
#pragma once

#include "kernels/cuda/flash/sm90.h"

namespace attnmux {

inline constexpr int64_t kFlashSm90WideFrom = 256, kFlashSm90WideTo = 512;  // more than, up to

inline constexpr int kFlashSm90WideRows = 64;  // queries of a tile

// K and V of a step fill shared memory more than once, so both arrive in chunks: `stages` of each are under way.
// 64 queries read 1/64 byte per operation from L2, more than it can give to all multiprocessors: so blocks that work on
// neighbouring queries share copies.
// clang-format off
inline constexpr FlashSm90Tile kFlashSm90WideTiles[] = {
    {.dim = 384, .dim_v = 384, .groups = 2, .keys = 128, .stages = 5, .cluster = 2, .ping_pong = false, .lazy = true},
    {.dim = 512, .dim_v = 512, .groups = 2, .keys = 128, .stages = 4, .cluster = 2, .ping_pong = false, .lazy = true},
};
// clang-format on

constexpr int flash_sm90_wide_index(int64_t head_dim, int64_t head_dim_v) {
  return max_of(head_dim, head_dim_v) <= 384 ? 0 : 1;
}

/// The tile of an instance. Masks by position make tiles differ, whose blocks share nothing then.
ATTNMUX_DEVICE constexpr FlashSm90Tile flash_sm90_wide_tile(int index, FlashSm90Features features) {
  FlashSm90Tile tile = kFlashSm90WideTiles[index];
  if (features != FlashSm90Features::kPlain) tile.cluster = 1;
  return tile;
}

/// What a piece of a tile leaves: outputs, maxima and sums of two warpgroups.
constexpr int64_t flash_sm90_wide_partial_floats(const FlashSm90Tile& tile) {
  return int64_t{2} * 128 * (tile.dim_v / 4 + 4);
}

/// Launches an instance for this dtype (the files sm90_wide_*.cu), after it has made the tensor maps.
attnmux_code launch_flash_sm90_wide_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_wide_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);

}  // namespace attnmux
