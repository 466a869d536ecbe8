// SPDX-License-Identifier: Apache-2.0
// Both products for an instruction that multiplies whole tiles of 16 rows by 64 bytes:
//
//   S^T[16 n, 16 q] += K[16 n, 32 d] · Q^T[32 d, 16 q]
//   O^T[16 d, 16 q] += V^T[16 d, 32 n] · P^T[32 n, 16 q]
//
// The right factors are pairs of bf16 in units, exactly as Q is packed and as the softmax writes P; the left ones are
// packed tile by tile. A file supplies the instructions, and TiledProduct makes a Product of them:
//
//   configure(), release()      at the start and the end of a task
//   zero<t>()                   tile t of 8 becomes zeros
//   load<t>(from, stride)       row i from `from + i·stride` (floats); store<t>(to, stride) likewise
//   load_once<t>(from, stride)  like load, of what is not needed again soon
//   multiply_pairs<c, a, b>()   c += a·b
#pragma once

#include "kernels/cpu/flash/bf16_product-inl.h"
#include "kernels/cpu/flash/multiply-inl.h"
#include "kernels/cpu/flash/pack-inl.h"

namespace attnmux {
namespace {

static_assert(kLanes == kSquare && kBlocking.tile == kSquare && kBlocking.key_step == 2 * kSquare &&
                  kBlocking.unit_step == kSquare,
              "a row of a tile is a vector");

// ---- Packing --------------------------------------------------------------------------------------------------------

// Up to 16 units of a row, as far as it goes; a null row is zeros.
inline F load_units(const char* row, int64_t at, int64_t bytes) {
  if (row == nullptr) return zero();
  const int64_t left = bytes - at;
  const __mmask64 inside = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
  return _mm512_castsi512_ps(_mm512_maskz_loadu_epi8(inside, row + at));
}

// Rows of K, `bytes` long (null: zeros), become to[row / 16][unit / 16][16 rows][16 units].
inline void pack_key_squares(const char* const (&rows)[kBlocking.key_step], int64_t bytes, int64_t units, float* to) {
  for (int64_t i = 0; i < kBlocking.key_step; ++i) {
    float* row = to + i / kSquare * kSquare * units + i % kSquare * kSquare;
    for (int64_t at = 0; at < bytes; at += kSquare * 4) store(row + at / 4 * kSquare, load_units(rows[i], at, bytes));
  }
}

// 32 rows of V, `bytes` long (null: zeros), become to[d / 16][16 d][16 key units]; `stride` floats lie between tiles.
// Rows are transposed as units of two columns, those of even and of odd keys apart; then a unit of two keys takes half
// of either.
inline void pack_value_squares(const char* const (&rows)[2 * kSquare], int64_t bytes, int64_t tiles, int64_t stride,
                               float* to) {
  const int32_t high = static_cast<int32_t>(0xffff0000);
  for (int64_t t = 0; t < tiles; t += 2) {
    F even[kSquare], odd[kSquare];
    ATTNMUX_UNROLL(16)
    for (int i = 0; i < kSquare; ++i) {
      even[i] = load_units(rows[2 * i], t * kSquare * 2, bytes);
      odd[i] = load_units(rows[2 * i + 1], t * kSquare * 2, bytes);
    }
    transpose(even);
    transpose(odd);
    for (int i = 0; i < kSquare; ++i) {
      const int64_t d = 2 * i, tile = t + d / kSquare;
      if (tile == tiles) break;
      float* row = to + tile * stride + d % kSquare * kSquare;
      store(row, from_bits((bits(even[i]) & 0xffff) | bits(odd[i]) << 16));
      store(row + kSquare, from_bits((bits(even[i]) >> 16 & 0xffff) | (bits(odd[i]) & high)));
    }
  }
}

// ---- Multiplying ----------------------------------------------------------------------------------------------------

// A block of the result: kLeft tiles on top of each other, `left_stride` floats apart, times the two beside each other
// that a row of kBlocking.rows has. Tiles 0 to 3 are sums, 4 and 5 are left, 6 and 7 are right factors.
template <class Tiles, Start kStart, int kLeft>
inline void multiply_block(const float* left, int64_t left_stride, const float* right, int64_t units, float* result) {
  constexpr int64_t kRow = kBlocking.rows;
  static_assert(kRow == 2 * kSquare);
  const auto sums = [&](auto&& each) {
    each.template operator()<0>(result);
    each.template operator()<1>(result + kSquare);
    if constexpr (kLeft == 2) each.template operator()<2>(result + kSquare * kRow);
    if constexpr (kLeft == 2) each.template operator()<3>(result + kSquare * kRow + kSquare);
  };
  const auto load_left = [&]<int i>(int64_t u) {
    if constexpr (i < kLeft) Tiles::template load_once<4 + i>(left + i * left_stride + u * kSquare, kSquare);
  };
  const auto load_right = [&]<int j>(int64_t u) { Tiles::template load<6 + j>(right + u * kRow + j * kSquare, kRow); };
  const auto multiply = [&]<int i, int j>() {
    if constexpr (i < kLeft) Tiles::template multiply_pairs<2 * i + j, 4 + i, 6 + j>();
  };

  load_left.template operator()<0>(0);
  load_right.template operator()<0>(0);
  sums([]<int t>(float* at) {
    if constexpr (kStart == Start::kZero) {
      Tiles::template zero<t>();
    } else {
      Tiles::template load<t>(at, kRow);
    }
  });
  load_right.template operator()<1>(0);
  load_left.template operator()<1>(0);
  for (int64_t u = kSquare; u < units; u += kSquare) {
    multiply.template operator()<0, 0>();
    multiply.template operator()<0, 1>();
    multiply.template operator()<1, 0>();
    multiply.template operator()<1, 1>();
    load_left.template operator()<0>(u);
    load_right.template operator()<0>(u);
    load_right.template operator()<1>(u);
    load_left.template operator()<1>(u);
  }
  multiply.template operator()<0, 0>();
  multiply.template operator()<0, 1>();
  multiply.template operator()<1, 0>();
  multiply.template operator()<1, 1>();
  sums([]<int t>(float* at) { Tiles::template store<t>(at, kRow); });
}

}  // namespace
}  // namespace attnmux
