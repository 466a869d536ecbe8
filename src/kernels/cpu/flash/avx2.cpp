// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/flash/flash_run.h"
#include "kernels/cpu/flash/layout.h"

namespace attnmux {
namespace {

constexpr Blocking kBlocking = kBlockingAvx2;

using F = __m256;
using I = int32_t __attribute__((vector_size(32)));
constexpr int kLanes = 8;
// 16 registers: 12 sums, 3 vectors of queries, 1 broadcast.
constexpr int kGroup = 3;
constexpr int kAccumulators = 12;

inline F broadcast(float x) { return _mm256_set1_ps(x); }
inline F madd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F larger(F a, F b) { return _mm256_max_ps(a, b); }
inline F smaller(F a, F b) { return _mm256_min_ps(a, b); }

inline bool all_true(I condition) { return _mm256_movemask_ps(reinterpret_cast<__m256>(condition)) == 0xff; }
inline bool all_finite_by_exponent(F x);
inline bool all_finite(F x) { return all_finite_by_exponent(x); }

// The 64-bit products of the even 32-bit lanes, unsigned.
inline I multiply_even(I a, I b) {
  return reinterpret_cast<I>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}

inline void zip(F a, F b, F& low, F& high) {
  const F even = _mm256_unpacklo_ps(a, b), odd = _mm256_unpackhi_ps(a, b);
  low = _mm256_permute2f128_ps(even, odd, 0x20);
  high = _mm256_permute2f128_ps(even, odd, 0x31);
}

inline F load_fp16(const void* from) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from))); }
inline void store_fp16(void* to, F x) {
  _mm_storeu_si128(static_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_bf16(const void* from) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from))), 16));
}
// Truncates each 32-bit lane to its low half.
inline void store_low_halves(void* to, I x) {
  const __m256i halves = _mm256_and_si256(reinterpret_cast<__m256i>(x), _mm256_set1_epi32(0xffff));
  _mm_storeu_si128(static_cast<__m128i*>(to),
                   _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
}
inline F load_bytes_as_mask(const void* from) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(from)));
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(wide, _mm256_setzero_si256()));
}

// Fetches a cache line and takes ownership of it. Compilers use the instruction only if told that the CPU has it; all
// with AVX2 do, or ignore it.
inline void prefetch_to_write(const char* line) { __asm__ volatile("prefetchw %0" : : "m"(*line)); }

// Four vectors of two quads (128 bits): quad i of vector j becomes quad j of 2·i … 2·i + 1.
inline void transpose_quads(F (&x)[4]) {
  const F a = _mm256_permute2f128_ps(x[0], x[1], 0x20), b = _mm256_permute2f128_ps(x[2], x[3], 0x20);
  const F c = _mm256_permute2f128_ps(x[0], x[1], 0x31), d = _mm256_permute2f128_ps(x[2], x[3], 0x31);
  x[0] = a;
  x[1] = b;
  x[2] = c;
  x[3] = d;
}

inline void transpose_by_zips(F (&x)[kLanes]);
inline void transpose(F (&x)[kLanes]) { transpose_by_zips(x); }
inline void copy_by_halves(char* to, const char* from, int64_t bytes);
inline void copy_some(char* to, const char* from, int64_t bytes) { copy_by_halves(to, from, bytes); }
inline F pair_bf16_by_rounding(F low, F high);
inline F pair_bf16(F low, F high) { return pair_bf16_by_rounding(low, high); }

template <typename Polynomial>
F exp2_by_shift(F x, Polynomial polynomial);

template <typename Polynomial>
inline F exp2_with(F x, Polynomial polynomial) {
  return exp2_by_shift(x, polynomial);
}

}  // namespace
}  // namespace attnmux

#include "kernels/cpu/flash/flash_fwd-inl.h"

namespace attnmux {

attnmux_code run_flash_avx2(const Problem* p, const RunContext* context, attnmux_error* error) {
  return run_flash<Fp32Product, Fp32Product>(*p, *context, error);
}

}  // namespace attnmux

#endif
