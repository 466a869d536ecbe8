// SPDX-License-Identifier: Apache-2.0
// What was measured per head_dim: the shape and the order of work of each instance of cuda_flash_sm80.
#pragma once

#include "kernels/cuda/flash/sm80.h"

namespace attnmux {

/// Whether outputs are rescaled only when a maximum has fallen far behind (takes_maximum).
constexpr bool flash_is_lazy(int64_t head_dim) { return (head_dim > 96 && head_dim <= 160) || head_dim > 256; }

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
  t.rows = general || dim > 128 ? 64 : 128;
  t.stages = general || masks_in_shared || dim > 128 ? 1 : 2;
  t.side_by_side = !general && !masks_in_shared && dim <= 64;
  t.staged_out = dim <= 192;
  return t;
}

}  // namespace attnmux
