// SPDX-License-Identifier: Apache-2.0
// head_dim 264 to 512, as in the attention of image decoders: the output of 64 queries fills the registers of a
// multiprocessor, so that the warps of a block share rows, and K and V arrive in chunks.
#pragma once

#include "kernels/cuda/flash/sm80.h"

namespace attnmux {

inline constexpr int64_t kWideFrom = 256, kWideTo = 512;  // more than, up to

/// A block: warps_m·32 queries; four warps share 32 rows, each with a quarter of a tile's keys and of the output's
/// columns. A chunk is 128 columns of a tile of K, or as many bytes of V.
struct WideShape {
  int warps_m;  // 2 where 64 queries and two chunks fit into shared memory, else 1
  int chunks;   // in shared memory at a time
};

constexpr int wide_keys(int warps_m) { return 64 * warps_m; }  // of a tile

constexpr int64_t wide_shared_bytes(int64_t dim, WideShape shape) {
  const int64_t rows = 32 * shape.warps_m, keys = wide_keys(shape.warps_m);
  const int64_t queries = rows * dim * 2, probabilities = rows * keys * 2, maxima = rows * 4 * 4;
  return queries + probabilities + maxima + shape.chunks * keys * 256;
}

/// The shapes that are compiled, the best first. `dim` is 384 or 512: the width of the instance.
inline constexpr WideShape kWideShapes[] = {{2, 4}, {2, 2}, {1, 3}};

/// The first that fits into `shared_limit` bytes; the last fits every GPU that there is code for.
constexpr int wide_shape(int64_t dim, int64_t shared_limit) {
  for (int i = 0; i < 2; ++i) {
    if (wide_shared_bytes(dim, kWideShapes[i]) <= shared_limit) return i;
  }
  return 2;
}

/// Launch an instance: with positions_only, the one that knows causal, window and lengths, and aligned rows. The
/// results are cudaError_t.
int launch_flash_wide_bf16(FlashSm80Call& call, bool positions_only, void* stream);
int launch_flash_wide_fp16(FlashSm80Call& call, bool positions_only, void* stream);

}  // namespace attnmux
