// SPDX-License-Identifier: Apache-2.0
// Few queries and many keys: rows of all query heads that share a kv head lie in one tile, and the keys of a tile are
// cut into pieces that blocks work on side by side ("Flash-Decoding", Dao et al., 2023). Each piece leaves an output
// that is not normalised, its maximum and its sum in the workspace; a second kernel combines them in a fixed order.
#pragma once

#include "kernels/cuda/flash/sm80.h"

namespace attnmux {

inline constexpr int64_t kSplitRows = 64, kSplitKeys = 64;  // of a tile

/// How a problem is cut; pieces 0: it is left to the kernel of whole heads.
struct FlashSplit {
  int64_t tiles;   // of kSplitRows rows, per kv head
  int64_t pieces;  // of keys, per tile; 1: nothing to combine
};

/// Blocks that run at a time on a device of `multiprocessors` with `shared_bytes` for one block.
int64_t split_slots(int64_t head_dim, int32_t multiprocessors, int32_t shared_bytes);

/// A fixed rule: the same problem on the same model of GPU is always cut alike, so that results repeat bit by bit.
FlashSplit flash_split(const Problem& problem, int32_t multiprocessors, int64_t slots);

/// Of the partial results. Whatever is cut fits into one wave, so that this depends on nothing but head_dim and whether
/// there are keys enough to be cut.
size_t split_workspace_bytes(const Problem& problem, int64_t slots);

struct alignas(8) PartialState {
  float maximum, sum;
};

struct FlashSplitCall {
  FlashSm80Call base;
  int64_t tiles, pieces;
  PartialState* state;  // (tile, piece, row); null where pieces is 1
  float* out;           // (tile, piece, row, head_dim_v)
};

/// Launch an instance; with positions_only, the one that knows causal, window and lengths, and aligned rows. The
/// other takes head_dim up to 128. The results are cudaError_t.
int launch_flash_split_bf16(FlashSplitCall& call, bool positions_only, void* stream);
int launch_flash_split_fp16(FlashSplitCall& call, bool positions_only, void* stream);

}  // namespace attnmux
