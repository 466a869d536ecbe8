// SPDX-License-Identifier: Apache-2.0
// What a producer looks up of sm90_stream.h: the tile of queries that a place of the queue stands for, and the steps of
// keys that masks leave it. A whole warp calls these.
#pragma once

#include "kernels/cuda/flash/sm90_stream.h"

namespace attnmux {
namespace {

// The tile of queries of one head that a place of a list stands for. Where heads share tiles, `head` is the first of
// them and `first_query` the first row.
struct Sm90Place {
  int b, head, first_query;
};

// The steps of a tile that masks leave, from the last to the first. 32 steps are looked at together, a lane each.
struct Sm90LiveSteps {
  const uint8_t* states;  // of the tile's steps; null: all are live
  int first, end, lane;
  int chunk = -1;
  uint32_t live = 0, masked = 0, padded = 0;

  __device__ void look(int at) {
    chunk = at;
    const int step = chunk * 32 + lane;
    const bool inside = step >= first && step < end;
    uint32_t state = inside ? kSm90StepLive : 0;
    if (inside && states != nullptr) state = states[step];
    live = __ballot_sync(0xFFFFFFFFu, (state & kSm90StepLive) != 0);
    masked = __ballot_sync(0xFFFFFFFFu, (state & kSm90StepMasked) != 0);
    padded = __ballot_sync(0xFFFFFFFFu, (state & kSm90StepPadded) != 0);
  }
  // How many there are; then next() gives the last of them.
  __device__ int start() {
    if (first >= end) return 0;
    int count = states == nullptr ? end - first : 0;
    const int last = (end - 1) / 32;
    if (states != nullptr) {
      for (int i = first / 32; i < last; ++i) {
        look(i);
        count += __popc(live);
      }
    }
    look(last);
    return states == nullptr ? count : count + __popc(live);
  }
  struct Step {
    int step;
    uint32_t states;
  };
  __device__ Step next() {
    while (live == 0) look(chunk - 1);
    const int bit = 31 - __clz(static_cast<int>(live));
    live ^= 1u << bit;
    return {chunk * 32 + bit, (masked >> bit & 1) * kSm90StepMasked | (padded >> bit & 1) * kSm90StepPadded};
  }
};

// What stands beside a K tile: its step, and whether masks hide some of it.
constexpr int kMaskedNote = 1 << 30;
__device__ inline uint32_t step_note(int step, uint32_t states) {
  return static_cast<uint32_t>(step | ((states & kSm90StepMasked) != 0 ? kMaskedNote : 0));
}
__device__ inline int step_of(int note) { return note & (kMaskedNote - 1); }
__device__ inline bool is_masked(int note) { return (note & kMaskedNote) != 0; }

// Which packed sequence has this place: 32 candidates are tried at a time.
__device__ inline int find_sequence(const FlashSm90Queue& queue, int batch, int place, int lane) {
  int low = 0, high = batch;
  while (high - low > 1) {
    const int stride = (high - low + 31) / 32, probe = low + lane * stride;
    const bool at_or_before = probe < high && queue.first_place[probe] <= place;
    low += (__popc(__ballot_sync(0xFFFFFFFFu, at_or_before)) - 1) * stride;
    high = min(low + stride, high);
  }
  return low;
}

// Tiles, of `rows` queries, of a head of a packed sequence run side by side; where masks by position make them differ,
// those with most keys come first, of all heads.
__device__ inline Sm90Place locate_packed(const FlashSm90Queue& queue, const Problem& p, int place, int rows,
                                          int lane) {
  const int index = find_sequence(queue, static_cast<int>(p.batch), place, lane), b = queue.order[index];
  const int within = place - queue.first_place[index], heads = static_cast<int>(p.num_heads_q);
  const int tiles = (queue.first_place[index + 1] - queue.first_place[index]) / heads;
  if (p.window_left >= 0 || p.window_right >= 0) {
    const int before = within / heads;
    return {b, within - before * heads, (tiles - 1 - before) * rows};
  }
  const int head = within / tiles;
  return {b, head, (within - head * tiles) * rows};
}

__device__ inline int64_t item_of(const FlashSm90Keys& keys, const Sm90Place& place, int rows) {
  return place.b * keys.batch_items + place.head * keys.head_items + place.first_query / rows * keys.tile_items;
}

}  // namespace
}  // namespace attnmux
