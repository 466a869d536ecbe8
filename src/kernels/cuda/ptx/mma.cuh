// SPDX-License-Identifier: Apache-2.0
// Matrix products of a warp, sm80 and newer. Sections of the PTX ISA are named by their titles: their numbers
// differ between its versions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace attnmux::ptx {
namespace {

// "Matrix Multiply-Accumulate Operation using mma Instruction", "Matrix Fragments for mma.m16n8k16": d += a·b. With g =
// lane / 4 and t = lane % 4, a holds rows g (a[0], a[2]) and g+8 (a[1], a[3]) at k = 2t (a[0], a[1]) and 2t+8; b holds
// column g at k = 2t (b[0]) and 2t+8 (b[1]); d holds row g (d[0], d[1]) and g+8 (d[2], d[3]) at columns 2t and 2t+1.
template <typename T>
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ inline void mma_m16n8k16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ inline void mma_m16n8k16<__half>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// "Warp-level matrix load instruction: ldmatrix": four 8×8 matrices of 16-bit elements; lane l gives the
// address of row l % 8 of matrix l / 8 and gets of each matrix row l / 4, elements 2(l % 4) and the next.
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t shared_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address)
               : "memory");
}

// The same with each matrix transposed: lane l gets column l / 4, rows 2(l % 4) and the next.
__device__ inline void ldmatrix_x4_transposed(uint32_t (&r)[4], uint32_t shared_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address)
               : "memory");
}

// Two floats as a pair of 16-bit elements, `low` in the low half; rounds to nearest even.
template <typename T>
__device__ inline uint32_t pack(float low, float high) {
  uint32_t r;
  if constexpr (__is_same(T, __half)) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;"
        : "=r"(r)
        : "f"(high), "f"(low));  // "Data Movement and Conversion Instructions: cvt"
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  }
  return r;
}

// "Floating Point Instructions: rcp": 1 / x, relative error below 2^-22.
__device__ inline float reciprocal_approximate(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// "Floating Point Instructions: ex2": 2^x, relative error below 2^-22; 2^-inf is 0.
__device__ inline float exp2_approximate(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

}  // namespace
}  // namespace attnmux::ptx
