// SPDX-License-Identifier: Apache-2.0
// The tiles of AMX as arrays: what the kernel's AmxTiles does, for machines without it, and to hold that to.
#pragma once

#include "kernels/cpu/flash/avx512_vector-inl.h"
#include "kernels/cpu/flash/vector-inl.h"

namespace attnmux {
namespace {

// Of a thread, like the registers. NaN until configured, and again once released.
struct TileRegisters {
  F row[8][16];
  bool configured;
};
thread_local TileRegisters tiles;

struct ModelTiles {
  static void fill(float value) {
    for (auto& tile : tiles.row) {
      for (F& row : tile) row = broadcast(value);
    }
  }
  static void configure() {
    tiles.configured = true;
    fill(0);
  }
  static void release() {
    tiles.configured = false;
    fill(__builtin_nanf(""));
  }
  template <int t>
  static void zero() {
    for (F& row : tiles.row[t]) row = broadcast(tiles.configured ? 0 : __builtin_nanf(""));
  }
  template <int t>
  static void load(const float* from, int64_t stride) {
    for (F& row : tiles.row[t]) {
      row = tiles.configured ? attnmux::load(from) : broadcast(__builtin_nanf(""));
      from += stride;
    }
  }
  template <int t>
  static void load_once(const float* from, int64_t stride) {
    load<t>(from, stride);
  }
  template <int t>
  static void store(float* to, int64_t stride) {
    for (const F& row : tiles.row[t]) {
      attnmux::store(to, row);
      to += stride;
    }
  }
  // Intel's manual, TDPBF16PS: the first and the second halves of the pairs are summed apart, by multiply-adds that
  // round to nearest and flush subnormal numbers, which flush_denormals() has the vector instructions do as well; the
  // two sums are added, and the result goes to what was there.
  template <int c, int a, int b>
  static void multiply_pairs() {
    const int32_t high = static_cast<int32_t>(0xffff0000);
    for (int64_t m = 0; m < 16; ++m) {
      F first = attnmux::zero(), second = attnmux::zero();
      for (int64_t k = 0; k < 16; ++k) {
        const F left = broadcast(tiles.row[a][m][k]), right = tiles.row[b][k];
        first = madd(from_bits(bits(left) << 16), from_bits(bits(right) << 16), first);
        second = madd(from_bits(bits(left) & high), from_bits(bits(right) & high), second);
      }
      tiles.row[c][m] = tiles.row[c][m] + (first + second);
    }
  }
};

}  // namespace
}  // namespace attnmux
