// SPDX-License-Identifier: Apache-2.0
// Matrix products of a warpgroup on E4M3 numbers, sm90a; layouts of results as in wgmma.cuh. Both factors are
// contiguous along k, of which a product has 32. PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate
// Instructions".
#pragma once

#include "kernels/cuda/ptx/wgmma.cuh"

namespace attnmux::ptx {
namespace {

// "Matrix Descriptor Format", for rows of 128 or 64 bytes, which are swizzled in groups of eight.
template <int kRowBytes>
__device__ inline uint64_t narrow_descriptor(uint32_t shared_address) {
  static_assert(kRowBytes == 128 || kRowBytes == 64);
  constexpr uint64_t kSwizzle = kRowBytes == 128 ? 1 : 2, kEightRows = kRowBytes * 8 / 16;
  return kSwizzle << 62 | kEightRows << 32 | uint64_t{1} << 16 | (shared_address & 0x3FFFF) / 16;
}

// "Data Movement and Conversion Instructions: cvt": the nearest of E4M3, 448 at most; the first in the lowest byte.
__device__ inline uint32_t pack_e4m3(float x0, float x1, float x2, float x3) {
  uint32_t r;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n"
      "}\n"
      : "=r"(r)
      : "f"(x0), "f"(x1), "f"(x2), "f"(x3));
  return r;
}

// "Matrix Fragments for mma.m16n8k32": d += a·b of a warp, with the same layouts of a and d; b has column l/4, four
// numbers from 4(l%4) (b0) and from 16 further (b1).
__device__ inline void mma_m16n8k32_e4m3(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d = a·b, or d += a·b with accumulate. Sums are kept with fewer bits than fp32 has.
template <int kN>
__device__ inline void wgmma_e4m3_shared(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulate);

// The same with a in registers: lane l has of rows l/4 (a[0], a[2]) and l/4 + 8 (a[1], a[3]) four numbers from
// 4(l%4), and from 16 further ("Register Fragments for wgmma.mma_async.m64nNk32").
template <int kN>
__device__ inline void wgmma_e4m3_registers(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate);

// n columns in `eights` eights of registers; then the numbers of the operands that follow.
#define ATTNMUX_WGMMA_E4M3(n, eights, r0, r1, r2, r3, r4, r5)                                              \
  template <>                                                                                              \
  __device__ inline void wgmma_e4m3_shared<n>(float(&d)[n / 2], uint64_t a, uint64_t b, bool accumulate) { \
    asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %" #r2                                            \
                 ", 0;\n"                                                                                  \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k32.f32.e4m3.e4m3 {" ATTNMUX_NAMES_##eights       \
                 "}, %" #r0 ", %" #r1 ", more, 1, 1;\n}\n"                                                 \
                 : ATTNMUX_OPERANDS_##eights                                                               \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));                                     \
  }                                                                                                        \
  template <>                                                                                              \
  __device__ inline void wgmma_e4m3_registers<n>(float(&d)[n / 2], const uint32_t(&a)[4], uint64_t b,      \
                                                 bool accumulate) {                                        \
    asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %" #r5                                            \
                 ", 0;\n"                                                                                  \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k32.f32.e4m3.e4m3 {" ATTNMUX_NAMES_##eights       \
                 "}, {%" #r0 ", %" #r1 ", %" #r2 ", %" #r3 "}, %" #r4 ", more, 1, 1;\n}\n"                 \
                 : ATTNMUX_OPERANDS_##eights                                                               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate))); \
  }

ATTNMUX_WGMMA_E4M3(64, 4, 32, 33, 34, 35, 36, 37)
ATTNMUX_WGMMA_E4M3(96, 6, 48, 49, 50, 51, 52, 53)
ATTNMUX_WGMMA_E4M3(128, 8, 64, 65, 66, 67, 68, 69)
ATTNMUX_WGMMA_E4M3(160, 10, 80, 81, 82, 83, 84, 85)
ATTNMUX_WGMMA_E4M3(192, 12, 96, 97, 98, 99, 100, 101)

#undef ATTNMUX_WGMMA_E4M3

}  // namespace
}  // namespace attnmux::ptx
