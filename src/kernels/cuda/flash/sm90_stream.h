// SPDX-License-Identifier: Apache-2.0
// What is made on the device before an instance starts that takes its tiles from a queue and its steps from the
// producer: which keys masks leave, and the order of packed sequences.
#pragma once

#include "kernels/cuda/flash/sm90_tiles.h"
#include "kernels/kernel.h"

namespace attnmux {

/// Does the producer tell the consumers of an instance which tiles and which keys they get?
ATTNMUX_DEVICE constexpr bool flash_sm90_is_streamed(FlashSm90Features features) {
  return features == FlashSm90Features::kKeys || features == FlashSm90Features::kAll;
}

/// A step of keys for a tile of queries, one byte.
enum FlashSm90StepState : uint8_t {
  kSm90StepLive = 1,    // some query attends some key: others are never loaded
  kSm90StepMasked = 2,  // some query does not attend some key: only then are bits looked at
  kSm90StepPadded = 4,  // padding hides some key from all queries: its row of V may hold NaN
};

/// Padding and dense masks, as one bit per query and key. What is the same for all batch entries, heads or queries is
/// there once: an item is what differs.
struct FlashSm90Keys {
  uint8_t* states;                              // (item, step); null: there is no such mask
  uint32_t* bits;                               // (item, step, row, lane of a quad, word)
  int64_t batch_items, head_items, tile_items;  // from one to the next, in items; 0: the same for all
  int64_t items;
  int32_t steps, rows, words;  // of an item; of a step, 1 or the tile's; of a lane
};

/// From where blocks take places of the list of tiles.
struct FlashSm90Queue {
  int32_t* next;         // how many were taken beyond the first of each block; null: places are dealt out in turn
  int32_t* order;        // packed sequences, longest first; null: there are none
  int32_t* first_place;  // of each of them in that order, and the number of all places
};

/// Bytes of both in the workspace.
size_t flash_sm90_stream_bytes(const Problem& problem, FlashSm90Features features);
void place_flash_sm90_stream(const Problem& problem, FlashSm90Features features, void* workspace, FlashSm90Keys& keys,
                             FlashSm90Queue& queue);

/// Fills them in; the result is a cudaError_t.
int prepare_flash_sm90_stream(const Problem& problem, const FlashSm90Tile& tile, const FlashSm90Keys& keys,
                              const FlashSm90Queue& queue, void* stream);

}  // namespace attnmux
