// SPDX-License-Identifier: Apache-2.0
// The tile instructions of AMX: what tiles-inl.h asks for.
//
// As assembly and not as g++'s intrinsics: those want the tile's number as a literal of the preprocessor, and do not
// tell the compiler which memory they read, so that it could move a store behind the load that needs it.
#pragma once

#include <cstdint>

namespace attnmux {
namespace {

struct AmxTiles {
  // Palette 1: eight tiles of 16 rows by 64 bytes.
  static void configure() {
    struct alignas(64) {
      uint8_t palette, start_row, reserved[14];
      uint16_t row_bytes[16];
      uint8_t rows[16];
    } config{};
    static_assert(sizeof(config) == 64);
    config.palette = 1;
    for (int t = 0; t < 8; ++t) {
      config.row_bytes[t] = 64;
      config.rows[t] = 16;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  // Back to the initial state, so that context switches need not save eight KiB.
  static void release() { __asm__ volatile("tilerelease"); }

  template <int t>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(t));
  }
  template <int t>
  static void load(const float* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride * 4), "i"(t) : "memory");
  }
  // The same for what is not needed again soon: it should not take the place of what is.
  template <int t>
  static void load_once(const float* from, int64_t stride) {
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride * 4), "i"(t) : "memory");
  }
  template <int t>
  static void store(float* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride * 4), "i"(t) : "memory");
  }
  // c += a·b in fp32, pairs of bf16 from a row of `a` and a column of `b`.
  template <int c, int a, int b>
  static void multiply_pairs() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
  }
};

}  // namespace
}  // namespace attnmux
