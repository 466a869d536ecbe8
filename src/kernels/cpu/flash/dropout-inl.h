// SPDX-License-Identifier: Apache-2.0
// Dropout's factors for a block of scores: Philox4x32-10 with queries in the lanes. The numbers are those of
// dropout_words() in kernels/kernel.h.
#pragma once

#include "kernels/cpu/flash/masks-inl.h"
#include "kernels/cpu/flash/vector-inl.h"

namespace attnmux {
namespace {

using U = uint32_t __attribute__((vector_size(sizeof(I))));

using U64 = uint64_t __attribute__((vector_size(sizeof(I))));
constexpr uint64_t kLow = 0xffffffff;

// The odd lanes in the place of the even ones; zeros above them.
inline I odd_lanes(I x) { return reinterpret_cast<I>(reinterpret_cast<U64>(x) >> 32); }
// Even lanes of one, and of the other in the place of the odd ones.
inline I interleave_lanes(I even, I odd) {
  return reinterpret_cast<I>((reinterpret_cast<U64>(even) & kLow) | (reinterpret_cast<U64>(odd) << 32));
}

// The halves of a·b for every 32-bit lane.
inline void multiply_wide(I a, I b, I& high, I& low) {
  const U64 even = reinterpret_cast<U64>(multiply_even(a, b)),
            odd = reinterpret_cast<U64>(multiply_even(reinterpret_cast<I>(reinterpret_cast<U64>(a) >> 32), b));
  high = reinterpret_cast<I>((even >> 32) | (odd & ~kLow));
  low = reinterpret_cast<I>((even & kLow) | (odd << 32));
}

inline I broadcast_bits(uint32_t x) { return I{} + static_cast<int32_t>(x); }

constexpr uint32_t kPhiloxM0 = 0xD2511F53, kPhiloxM1 = 0xCD9E8D57;

struct PhiloxKeys {
  uint32_t k0[10], k1[10];
};
inline PhiloxKeys philox_keys(uint64_t seed) {
  PhiloxKeys keys;
  for (uint32_t i = 0; i < 10; ++i) {
    keys.k0[i] = static_cast<uint32_t>(seed) + i * 0x9E3779B9;
    keys.k1[i] = static_cast<uint32_t>(seed >> 32) + i * 0xBB67AE85;
  }
  return keys;
}

// What the first two rounds make of a row, whatever the key: the counter's words 1 and 2 are the row's, word 0 is the
// key's and meets them in the second round.
struct PhiloxRows {
  I c1;         // after round 1
  I high, low;  // of the product that round 2 takes from word 0
};

inline PhiloxRows philox_rows(const PhiloxKeys& keys, I query, I head) {
  PhiloxRows rows;
  I c0;
  multiply_wide(head, broadcast_bits(kPhiloxM1), c0, rows.c1);
  c0 = c0 ^ query ^ broadcast_bits(keys.k0[0]);
  multiply_wide(c0, broadcast_bits(kPhiloxM0), rows.high, rows.low);
  return rows;
}

// kept[key][row] = 1 / (1 - p) or 0.
inline void draw_dropout(const Problem& p, const Rows& rows, const KeyBlock& block, float* kept) {
  const uint32_t threshold = dropout_threshold(p.dropout_p);
  const F factor = broadcast(static_cast<float>(1 / (1 - p.dropout_p)));
  const PhiloxKeys keys = philox_keys(p.dropout_seed);
  const I m0 = broadcast_bits(kPhiloxM0), m1 = broadcast_bits(kPhiloxM1), least = broadcast_bits(threshold);
  for (int64_t v = 0; v < rows.vectors; ++v) {
    alignas(64) int32_t query[kLanes], head[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) {
      query[i] = static_cast<int32_t>(rows.query[v * kLanes + i]);
      head[i] = static_cast<int32_t>(rows.batch * p.num_heads_q + rows.head[v * kLanes + i]);
    }
    const PhiloxRows row = philox_rows(keys, load_int(query), load_int(head));
    const I c1_of[2] = {row.c1, odd_lanes(row.c1)}, high_of[2] = {row.high, odd_lanes(row.high)},
            low_of[2] = {row.low, odd_lanes(row.low)};
    for (int64_t n = 0; n < block.keys(); n += 4) {
      // Rounds 1 and 2: the key's part is the same for all rows.
      const uint64_t p0 = uint64_t{kPhiloxM0} * static_cast<uint32_t>((block.first + n) / 4);
      const uint32_t s2 = static_cast<uint32_t>(p0 >> 32) ^ static_cast<uint32_t>(p.dropout_offset) ^ keys.k1[0];
      const uint64_t p1 = uint64_t{kPhiloxM1} * s2;
      // Rows in even and in odd lanes apart: a product fills the lane above its row, where nobody looks.
      I words[2][4];
      ATTNMUX_UNROLL(2)
      for (int odd = 0; odd < 2; ++odd) {
        I c0 = c1_of[odd] ^ broadcast_bits(static_cast<uint32_t>(p1 >> 32) ^ keys.k0[1]);
        I c1 = broadcast_bits(static_cast<uint32_t>(p1));
        I c2 = high_of[odd] ^ broadcast_bits(static_cast<uint32_t>(p0) ^ keys.k1[1]);
        I c3 = low_of[odd];
        ATTNMUX_UNROLL(8)
        for (int round = 2; round < 10; ++round) {
          const I product0 = multiply_even(c0, m0), product1 = multiply_even(c2, m1);
          c0 = odd_lanes(product1) ^ c1 ^ broadcast_bits(keys.k0[round]);
          c2 = odd_lanes(product0) ^ c3 ^ broadcast_bits(keys.k1[round]);
          c1 = product1;
          c3 = product0;
        }
        words[odd][0] = c0;
        words[odd][1] = c1;
        words[odd][2] = c2;
        words[odd][3] = c3;
      }
      float* to = kept + n * kBlocking.rows + v * kLanes;
      ATTNMUX_UNROLL(4)
      for (int i = 0; i < 4; ++i) {
        // Both are below 2^24, so that a signed comparison does.
        const I u = reinterpret_cast<I>(reinterpret_cast<U>(interleave_lanes(words[0][i], words[1][i])) >> 8);
        store(to + i * kBlocking.rows, select(u >= least, factor, zero()));
      }
    }
  }
}

}  // namespace
}  // namespace attnmux
