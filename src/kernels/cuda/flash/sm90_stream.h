// SPDX-License-Identifier: Apache-2.0
// What is made on the device before an instance starts that takes its tiles from a queue and its steps from the
// producer: which keys masks leave, and the order of packed sequences.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

/// What masks are looked at by: rows of a tile of queries, keys of a step.
struct FlashSm90StepShape {
  int64_t rows, keys;
};

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

/// Words of 32 bits for a lane's scores in a row of a step.
ATTNMUX_DEVICE constexpr int flash_sm90_mask_words(int64_t keys) { return static_cast<int>((keys + 127) / 128); }

/// Bytes of both in the workspace.
size_t flash_sm90_stream_bytes(const Problem& problem, const FlashSm90StepShape& shape);
void place_flash_sm90_stream(const Problem& problem, const FlashSm90StepShape& shape, void* workspace,
                             FlashSm90Keys& keys, FlashSm90Queue& queue);

/// Fills them in; the result is a cudaError_t.
int prepare_flash_sm90_stream(const Problem& problem, const FlashSm90StepShape& shape, const FlashSm90Keys& keys,
                              const FlashSm90Queue& queue, void* stream);

}  // namespace attnmux
