// SPDX-License-Identifier: Apache-2.0
// What was measured per head_dim: the shape and the order of work of each instance of cuda_flash_sm80.
#pragma once

#include "kernels/cuda/flash/sm80.h"

namespace attnmux {

/// Whether outputs are rescaled only when a maximum has fallen far behind (takes_maximum). On an H200 that gains 3 to 4
/// % at head_dim 80 and 96; at 64, 11 to 15 % where blocks fill the GPU once or twice, (2, 4096, 10) and (2, 1024, 20),
/// for 1 to 2 % where they fill it many times, (16, 1024, 16) and (1, 16384, 32).
constexpr bool flash_is_lazy(int64_t head_dim) { return (head_dim > 48 && head_dim <= 160) || head_dim > 256; }

/// Whether blocks of 64 queries serve a call better than those of 128, of which a multiprocessor has two at a time:
/// with fewer than one and a half per place, the second round would leave most places empty. At head_dim 64, (2, 1024,
/// 20) has 1.2 and gains 6 %, (2, 4096, 10) has 2.4 and would lose 15 %.
constexpr bool flash_takes_small_blocks(int64_t head_dim, int64_t blocks, int64_t multiprocessors) {
  return head_dim > 48 && head_dim <= 64 && blocks < 3 * multiprocessors;
}

struct FlashTuning {
  int rows;           // queries of a block
  int stages;         // buffers of K and of V
  bool side_by_side;  // softmax of a warp's two row tiles at the same time
  bool staged_out;    // outputs pass through shared memory, to be written 16 bytes at a time
};

constexpr FlashTuning flash_tuning(int dim, FlashFeatures features) {
  const bool general = features == FlashFeatures::kAll;
  const bool masks_in_shared = features == FlashFeatures::kMasks;
  FlashTuning t{};
  t.rows = general || dim > 128 || features == FlashFeatures::kSmallBlocks ? 64 : 128;
  t.stages = general || masks_in_shared || dim > 128 ? 1 : 2;
  t.side_by_side = !general && !masks_in_shared && dim <= 64;
  t.staged_out = dim <= 192;
  return t;
}

}  // namespace attnmux
