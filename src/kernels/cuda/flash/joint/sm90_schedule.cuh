// SPDX-License-Identifier: Apache-2.0
// Which tiles of queries a block computes, and which keys they need. The producer walks over the list.
#pragma once

#include <climits>

#include "kernels/cuda/flash/joint/sm90_tile.cuh"
#include "kernels/cuda/flash/sm90_queue.cuh"
#include "kernels/cuda/ptx/warpgroup.cuh"

namespace attnmux::joint {
namespace {

// Which keys causal, window and lengths leave to a query: [max(begin_key, query + first), min(query + last, length)).
struct Sm90Positions {
  int first, last, begin_key, length;
  __device__ int begin(int query) const { return min(max(query + first, begin_key), length); }
  __device__ int end(int query) const { return max(min(query + last, length), 0); }
};

constexpr Sm90Positions kAnyPosition = {-static_cast<int>(kFlashSm90MaxLength), static_cast<int>(kFlashSm90MaxLength),
                                        0, 0};  // and `length` as it is

// What a block does next: a place of the list of tiles, or a piece of one.
struct Sm90Turn {
  int place;
  int first_step = 0, end_step = INT_MAX;
  int piece = 0, pieces = 1;
  int tile = 0, first_block = 0;  // among the tiles that are shared; the block that has the first piece
};

// The turns of a block: in each round it takes one of `blocks` places of the list. The list has the longest tiles first
// where a mask makes some longer, and blocks take places forwards and backwards in turns, so that all get
// about the same work. Places that do not fill a round may be shared: then each block takes the same number of steps,
// of one tile or of two that follow each other.
template <FlashSm90Features kFeatures>
struct Sm90Turns {
  static constexpr bool kPositions = kFeatures != FlashSm90Features::kPlain;
  const FlashSm90Shares& shares;
  int block, blocks, places;

  __device__ int place(int round) const {
    return round * blocks + (kPositions && round % 2 != 0 ? blocks - 1 - block : block);
  }
  // Steps of the block among those that are shared, counted through all tiles.
  __device__ int first_shared() const { return min(block * shares.share, shared_steps()); }
  __device__ int end_shared() const { return min((block + 1) * shares.share, shared_steps()); }
  __device__ int shared_steps() const { return (places - shares.rounds * blocks) * shares.steps; }

  __device__ int count() const {
    int n = shares.rounds;
    if (n > 0 && place(n - 1) >= places) --n;
    if (kPositions || shares.share == 0 || first_shared() >= end_shared()) return n;
    return n + (end_shared() - 1) / shares.steps - first_shared() / shares.steps + 1;
  }
  __device__ Sm90Turn turn(int i) const {
    Sm90Turn t;
    if (kPositions || i < shares.rounds) {
      t.place = place(i);
      return t;
    }
    t.tile = first_shared() / shares.steps + i - shares.rounds;
    t.place = shares.rounds * blocks + t.tile;
    const int before = t.tile * shares.steps;
    t.first_step = max(first_shared() - before, 0);
    t.end_step = min(shares.steps, end_shared() - before);
    t.first_block = before / shares.share;
    t.piece = block - t.first_block;
    t.pieces = (before + shares.steps - 1) / shares.share - t.first_block + 1;
    return t;
  }
};

// Where the rows of a batch entry begin in the tensors, and how many it has.
struct Sm90Sequence {
  int batch;          // coordinate in the tensors
  int q_row, kv_row;  // of packed sequences; else 0
  int queries, keys;  // keys [0, keys) can be attended
};

// Its steps: step n has the keys [n·kN, (n + 1)·kN). They run from the last to the first, so that the steps that need a
// mask come first.
struct Sm90Work : Sm90Place {
  Sm90Sequence sequence;
  int first_step, end_step;
  int valid_begin, valid_end;  // keys that some query of this batch entry attends; others may hold NaN in V
  Sm90Positions positions;
  const uint32_t* bits = nullptr;  // what masks leave, where some hide keys
  __device__ bool empty() const { return first_step >= end_step; }
  __device__ bool no_more() const { return end_step < 0; }
};

__device__ inline Sm90Sequence sm90_sequence(const FlashSm90Call& call, int b) {
  const Problem& p = call.p;
  if (!given(p.cu_seqlens_q) && !given(p.key_lengths)) {
    return {b, 0, 0, static_cast<int>(p.seqlen_q), static_cast<int>(p.seqlen_kv)};
  }
  const Sequence s = sequence(p, b);
  Sm90Sequence r{b, 0, 0, ptx::uniform(static_cast<int>(s.seqlen_q)), ptx::uniform(static_cast<int>(s.key_length))};
  if (given(p.cu_seqlens_q)) {
    r.batch = 0;
    r.q_row = ptx::uniform(static_cast<int>(clamped_entry(p.cu_seqlens_q, b, p.q.shape[1])));
    r.kv_row = ptx::uniform(static_cast<int>(clamped_entry(p.cu_seqlens_kv, b, p.k.shape[1])));
  }
  return r;
}

// Which head and which queries a place of the list stands for. Tiles of one head run side by side, to share K and V in
// L2. Where masks make tiles differ, the last queries of call.section heads come first, then those before them.
template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
__device__ inline Sm90Place locate(const FlashSm90Call& call, int place, int rank) {
  using L = FlashSm90Layout<kTile>;
  int item, index;
  if constexpr (kFeatures != FlashSm90Features::kPlain) {
    const int per_section = call.section * call.q_tiles;
    const int section = min(place / per_section, call.sections - 1), within = place - section * per_section;
    const int heads = section < call.sections - 1 ? call.section : call.items - section * call.section;
    index = within / heads;
    const int along = within - index * heads;
    // Forwards and backwards in turns, so that the keys that were used last are used next.
    item = section * call.section + (index % 2 != 0 ? heads - 1 - along : along);
    index = call.q_tiles - 1 - index;
  } else {
    item = place / call.q_tiles;
    index = place - item * call.q_tiles;
  }
  const int heads = static_cast<int>(call.p.num_heads_q);
  const int b = item / heads;
  return {b, item - b * heads, (index * kTile.cluster + rank) * L::kM};
}

template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
__device__ inline Sm90Work sm90_work(const FlashSm90Call& call, const Sm90Place& place, const Sm90Turn& turn,
                                     int rank) {
  using L = FlashSm90Layout<kTile>;
  const Problem& p = call.p;
  Sm90Work w{place};
  w.sequence = sm90_sequence(call, w.b);
  const int queries = w.sequence.queries, length = w.sequence.keys;
  w.positions = kAnyPosition;
  w.positions.length = length;
  if constexpr (kFeatures != FlashSm90Features::kPlain) {
    const int delta = p.align == ATTNMUX_ALIGN_BOTTOM_RIGHT ? length - queries : 0;
    constexpr int64_t kFar = kFlashSm90MaxLength;
    if (p.window_left >= 0) w.positions.first = static_cast<int>(max_of(delta - p.window_left, -kFar));
    if (p.window_right >= 0) w.positions.last = static_cast<int>(min_of(delta + p.window_right + 1, kFar));
  }
  const int last_query = min(w.first_query + L::kM, queries) - 1;
  const int first_key = w.positions.begin(w.first_query);
  // All blocks of a cluster walk over the keys, or none.
  const int end_key = w.first_query - rank * L::kM < queries ? w.positions.end(last_query) : 0;
  w.valid_begin = w.positions.begin(0);
  w.valid_end = w.positions.end(queries - 1);
  w.first_step = max(first_key / L::kN, turn.first_step);
  w.end_step = first_key < end_key ? min((end_key + L::kN - 1) / L::kN, turn.end_step) : w.first_step;
  return w;
}

}  // namespace
}  // namespace attnmux::joint
