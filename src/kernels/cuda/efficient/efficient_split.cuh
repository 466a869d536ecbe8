// SPDX-License-Identifier: Apache-2.0
// fp32 products on TF32 tensor cores: x = big + small, with 11 significant bits each; a·b is then
// big·big + big·small + small·big, in that order of size from the last. What is dropped: small·small, below 2^-22
// |a·b|, and what rounding `small` leaves, below 2^-23 of each factor. fp16 and bf16 fit TF32: their `small` is zero,
// and its product is left out.
//
// Tensor cores cut the sums that they accumulate, so a long chain of them drifts towards zero; the callers add short
// chains together in fp32, rounded to nearest (Ootomo and Yokota, "Recovering single precision accuracy from Tensor
// Cores", 2022).
#pragma once

#include <cstdint>

namespace attnmux {
namespace {

struct Tf32Pair {
  uint32_t big, small;
};

// Of a TF32 operand the lower 13 bits do not count. Half of the last bit that does, added to the word, rounds to
// nearest, and away from zero in a tie. `big` is cut and not rounded: FLT_MAX would become infinite.
__device__ inline Tf32Pair split_tf32(float x) {
  const uint32_t big = __float_as_uint(x) & 0xFFFFE000u;
  return {big, __float_as_uint(x - __uint_as_float(big)) + 0x1000u};
}

// "Matrix Multiply-Accumulate Operation using mma Instruction", "Matrix Fragments for mma.m16n8k8": d += a·b. With g =
// lane / 4 and t = lane % 4, a holds rows g (a[0], a[2]) and g+8 (a[1], a[3]) at k = t (a[0], a[1]) and t+4; b holds
// column g at k = t and t+4; d is that of m16n8k16.
__device__ inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

struct LeftFactor {
  uint32_t big[4], small[4];
  __device__ void set(const float (&x)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Tf32Pair pair = split_tf32(x[i]);
      big[i] = pair.big;
      small[i] = pair.small;
    }
  }
};

// kLeft, kRight: the factor does not fit TF32.
template <bool kLeft, bool kRight>
__device__ inline void multiply_split(float (&d)[4], const LeftFactor& a, float b0, float b1) {
  const Tf32Pair first = split_tf32(b0), second = split_tf32(b1);
  if (kRight) mma_tf32(d, a.big, first.small, second.small);
  if (kLeft) mma_tf32(d, a.small, first.big, second.big);
  mma_tf32(d, a.big, first.big, second.big);
}

}  // namespace
}  // namespace attnmux
