// SPDX-License-Identifier: Apache-2.0
// AVX-512 as the flash kernels see it. Included once per file, before flash_fwd-inl.h, which says what each name means.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace attnmux {
namespace {

using F = __m512;
using I = int32_t __attribute__((vector_size(64)));
constexpr int kLanes = 16;
constexpr int kGroup = 4;
constexpr int kAccumulators = 16;

inline F broadcast(float x) { return _mm512_set1_ps(x); }
inline F madd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
// The masked forms, since g++ 12 warns about an undefined value inside the plain ones.
inline F larger(F a, F b) { return _mm512_mask_max_ps(a, 0xffff, a, b); }
inline F smaller(F a, F b) { return _mm512_mask_min_ps(a, 0xffff, a, b); }

inline bool all_true(I condition) { return _mm512_movepi32_mask(reinterpret_cast<__m512i>(condition)) == 0xffff; }

inline bool all_finite(F x) { return _mm512_fpclass_ps_mask(x, 0x99) == 0; }  // NaN of both kinds, both infinities

// The 64-bit products of the even 32-bit lanes, unsigned.
inline I multiply_even(I a, I b) {
  return reinterpret_cast<I>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

inline void zip(F a, F b, F& low, F& high) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  low = _mm512_permutex2var_ps(a, first, b);
  high = _mm512_permutex2var_ps(a, second, b);
}

inline F load_fp16(const void* from) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(from))); }
inline void store_fp16(void* to, F x) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_bf16(const void* from) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(from))), 16));
}
// Truncates each 32-bit lane to its low half.
inline void store_low_halves(void* to, I x) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(x)));
}
inline F load_bytes_as_mask(const void* from) {
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  return _mm512_castsi512_ps(_mm512_movm_epi32(_mm512_test_epi32_mask(wide, wide)));
}

// Four vectors of four quads (128 bits): quad i of vector j becomes quad j of vector i.
inline void transpose_quads(F (&x)[4]) {
  const F low = _mm512_shuffle_f32x4(x[0], x[1], 0x44), high = _mm512_shuffle_f32x4(x[0], x[1], 0xee);
  const F low2 = _mm512_shuffle_f32x4(x[2], x[3], 0x44), high2 = _mm512_shuffle_f32x4(x[2], x[3], 0xee);
  x[0] = _mm512_shuffle_f32x4(low, low2, 0x88);
  x[1] = _mm512_shuffle_f32x4(low, low2, 0xdd);
  x[2] = _mm512_shuffle_f32x4(high, high2, 0x88);
  x[3] = _mm512_shuffle_f32x4(high, high2, 0xdd);
}

// Within the quads of four rows first, by unpacking, then the quads.
inline void transpose(F (&x)[kLanes]) {
  F y[kLanes];
  for (int i = 0; i < kLanes; i += 4) {
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[i], x[i + 1])),
                  b = _mm512_castps_pd(_mm512_unpacklo_ps(x[i + 2], x[i + 3])),
                  c = _mm512_castps_pd(_mm512_unpackhi_ps(x[i], x[i + 1])),
                  d = _mm512_castps_pd(_mm512_unpackhi_ps(x[i + 2], x[i + 3]));
    y[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
    y[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    y[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
    y[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
  }
  for (int i = 0; i < 4; ++i) {
    F quads[4] = {y[i], y[i + 4], y[i + 8], y[i + 12]};
    transpose_quads(quads);
    for (int j = 0; j < 4; ++j) x[4 * j + i] = quads[j];
  }
}

inline void copy_some(char* to, const char* from, int64_t bytes) {
  const __mmask64 mask = ~uint64_t{0} >> (64 - bytes);
  _mm512_storeu_si512(to, _mm512_maskz_loadu_epi8(mask, from));
}

#if defined(__AVX512BF16__)
inline F pair_bf16(F low, F high) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                              6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i pairs = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(interleave, pairs));
}
#else
inline F pair_bf16_by_rounding(F low, F high);
inline F pair_bf16(F low, F high) { return pair_bf16_by_rounding(low, high); }
#endif

// 2^x for x <= 0: 2^floor(x) is applied by vscalefps, which needs no clamp and makes 0 of minus infinity.
template <typename Polynomial>
inline F exp2_with(F x, Polynomial polynomial) {
  const F power = polynomial.from_zero(_mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
  return _mm512_mask_scalef_ps(power, 0xffff, power, x);
}

// Fetches a cache line and takes ownership of it. Compilers use the instruction only if told that the CPU has it; all
// with AVX-512 do, or ignore it.
inline void prefetch_to_write(const char* line) { __asm__ volatile("prefetchw %0" : : "m"(*line)); }

}  // namespace
}  // namespace attnmux
