// SPDX-License-Identifier: Apache-2.0
// How the groups of a block learn what to compute: the producer, who needs to know first, writes it to shared memory
// before the queries arrive. So the places of tiles are worked out once, off the path of the products.
#pragma once

#include "kernels/cuda/flash/joint/sm90_schedule.cuh"
#include "kernels/cuda/ptx/warpgroup.cuh"

namespace attnmux::joint {
namespace {

// Words of an announcement.
enum Sm90Word {
  kWordB,
  kWordHead,
  kWordFirstQuery,
  kWordFirstStep,
  kWordEndStep,  // negative: there are no more tiles
  kWordLength,
  kWordBeginKey,
  kWordFirst,
  kWordLast,
  kWordQueries,
  kWordBatch,
  kWordQRow,
  kWordTile,
  kWordFirstBlock,
  kWordPiece,
  kWordPieces,
  // Instances with kKeys share no tiles.
  kWordBits = kWordTile,  // two
};

__device__ inline void write_words(uint32_t to, int a, int b, int c, int d) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

// One thread calls it, which then arrives at the barriers of Q.
template <FlashSm90Features kFeatures>
__device__ inline void announce(uint32_t to, const Sm90Work& w, const Sm90Turn& turn) {
  write_words(to, w.b, w.head, w.first_query, w.first_step);
  write_words(to + 16, w.end_step, w.positions.length, w.positions.begin_key, w.positions.first);
  write_words(to + 32, w.positions.last, w.sequence.queries, w.sequence.batch, w.sequence.q_row);
  if constexpr (kFeatures == FlashSm90Features::kKeys) {
    const auto bits = reinterpret_cast<uint64_t>(w.bits);
    write_words(to + 48, static_cast<int>(bits), static_cast<int>(bits >> 32), 0, 1);
  } else {
    write_words(to + 48, turn.tile, turn.first_block, turn.piece, turn.pieces);
  }
}
// Also the first step, by which a consumer tells that the tile is empty and stores the one before: what memory held
// there before would sometimes be less than -1.
__device__ inline void announce_end(uint32_t to) {
  write_words(to, 0, 0, 0, 0);
  write_words(to + 16, -1, 0, 0, 0);
}

// The same in the whole group.
__device__ inline int announced(uint32_t from, Sm90Word word) {
  int x;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(from + 4 * word) : "memory");
  return ptx::uniform(x);
}

// What the steps need to know.
template <FlashSm90Features kFeatures>
__device__ inline Sm90Work announced_work(uint32_t from) {
  Sm90Work w{};
  w.first_query = announced(from, kWordFirstQuery);
  w.first_step = announced(from, kWordFirstStep);
  w.end_step = announced(from, kWordEndStep);
  w.positions = kAnyPosition;
  w.positions.length = announced(from, kWordLength);
  if constexpr (kFeatures != FlashSm90Features::kPlain) {
    w.positions.first = announced(from, kWordFirst);
    w.positions.last = announced(from, kWordLast);
  }
  if constexpr (kFeatures == FlashSm90Features::kKeys) {
    const auto low = static_cast<uint32_t>(announced(from, kWordBits));
    const auto high = static_cast<uint32_t>(announced(from, static_cast<Sm90Word>(kWordBits + 1)));
    w.bits = reinterpret_cast<const uint32_t*>(uint64_t{high} << 32 | low);
  }
  return w;
}

// Which piece of a shared tile it is.
__device__ inline Sm90Turn announced_piece(uint32_t from) {
  Sm90Turn t{};
  t.tile = announced(from, kWordTile);
  t.first_block = announced(from, kWordFirstBlock);
  t.piece = announced(from, kWordPiece);
  t.pieces = announced(from, kWordPieces);
  return t;
}

}  // namespace
}  // namespace attnmux::joint
