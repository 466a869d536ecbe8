// SPDX-License-Identifier: Apache-2.0
// cuda_flash_sm90: FlashAttention-3 (Shah et al., 2024) on wgmma and the tensor memory accelerator, for Hopper.
#pragma once

#include "kernels/cuda/flash/sm90_stream.h"
#include "kernels/cuda/flash/sm90_tiles.h"
#include "kernels/cuda/runtime/tensor_map.h"
#include "kernels/kernel.h"

namespace attnmux {

extern const Kernel kCudaFlashSm90;

/// Queries and keys of a sequence are counted in 32 bits inside the kernel.
inline constexpr int64_t kFlashSm90MaxLength = int64_t{1} << 30;

/// How the places of the list of tiles are shared out: whole ones in rounds, a place for each block; then, where
/// `share` is not 0, the steps of those that are left, `share` for each block, so that blocks do not wait for the last
/// round.
struct FlashSm90Shares {
  int32_t rounds;
  int32_t steps;  // of a tile
  int32_t share;
};

/// One launch: the problem and what the host derives from it.
struct FlashSm90Call {
  TensorMap q_map, k_map, v_map, bias_map;
  Problem p;
  FlashSm90Features features;
  float scale_log2;   // scale·log2(e), or log2(e) where scores are finished before softmax (kAll)
  int32_t q_tiles;    // of queries, per head; a cluster's count as one
  int32_t items;      // heads of all batch entries
  int32_t pack;       // heads that share a tile's rows: row r is query r / pack of head r % pack of them; 1: none do
  int32_t tile_rows;  // of a tile that are used
  int32_t section;    // so many heads take turns where tiles differ in length
  FlashSm90Shares shares;
  int32_t* arrivals;  // how many pieces of a tile are done; before the partial results in the workspace
  float* partials;
  FlashSm90Keys keys;       // of instances that are streamed, and
  FlashSm90Queue queue;     // these two are in the workspace
  int32_t multiprocessors;  // of the problem's device
  int64_t l2_bytes;
  int32_t aligned_out;  // out can be written 16 bytes at a time
  int32_t bias_boxes;   // boxes of the bias can be copied
  int32_t bias_rows;    // of the bias of a tile: 1 where all queries have the same
};

/// How many query heads share tiles in an instance that is not streamed: all of a kv head, where that makes fewer
/// tiles, or 1.
int32_t flash_sm90_pack(const Problem& problem, const FlashSm90Tile& tile);

/// Counters of a launch; zero when it starts.
inline constexpr int64_t kFlashSm90ArrivalBytes = 8192;

/// Launch an instance for this dtype and call.features (the files sm90_*.cu), after making the tensor maps: those
/// without hooks, with masks of keys, with everything.
attnmux_code launch_flash_sm90_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_keys_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_keys_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_all_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_all_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);

}  // namespace attnmux
