// SPDX-License-Identifier: Apache-2.0
// Vectors of 128 bits in plain C++, for every processor: SSE2 on x86-64, Advanced SIMD on aarch64.
#include <cstdint>

#include "kernels/cpu/flash/flash_run.h"
#include "kernels/cpu/flash/layout.h"
#include "kernels/cpu/half.h"

namespace attnmux {
namespace {

constexpr Blocking kBlocking = kBlockingBaseline;

using F = float __attribute__((vector_size(16)));
using I = int32_t __attribute__((vector_size(16)));
constexpr int kLanes = 4;
// 16 registers: 12 sums, 3 vectors of queries, 1 broadcast.
constexpr int kGroup = 3;
constexpr int kAccumulators = 12;

inline F broadcast(float x) { return F{x, x, x, x}; }
inline F madd(F a, F b, F c) { return a * b + c; }
inline F larger(F a, F b) { return a > b ? a : b; }
inline F smaller(F a, F b) { return a < b ? a : b; }

inline bool all_true(I condition) { return (condition[0] & condition[1] & condition[2] & condition[3]) != 0; }
inline bool all_finite_by_exponent(F x);
inline bool all_finite(F x) { return all_finite_by_exponent(x); }

// The 64-bit products of the even 32-bit lanes, unsigned.
inline I multiply_even(I a, I b) {
  using U64 = uint64_t __attribute__((vector_size(16)));
  constexpr uint64_t kLow = 0xffffffff;
  return reinterpret_cast<I>((reinterpret_cast<U64>(a) & kLow) * (reinterpret_cast<U64>(b) & kLow));
}

inline void zip(F a, F b, F& low, F& high) {
  low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
}

// Not fp16_to_fp32() of half.h: that one passes through subnormal fp32 numbers, which a kernel flushes.
inline F load_fp16(const void* from) {
  uint16_t h[kLanes];
  __builtin_memcpy(h, from, sizeof(h));
  const I all{h[0], h[1], h[2], h[3]};
  const I magnitude = all & 0x7fff, shifted = magnitude << 13;
  const I subnormal = reinterpret_cast<I>(__builtin_convertvector(magnitude, F) * 0x1p-24f);
  const I finite = magnitude < 0x400 ? subnormal : shifted + (112 << 23);
  return reinterpret_cast<F>((magnitude < 0x7c00 ? finite : (shifted | 0x7f800000)) | (all & 0x8000) << 16);
}
inline void store_fp16(void* to, F x) {
  const uint16_t h[kLanes] = {fp32_to_fp16(x[0]), fp32_to_fp16(x[1]), fp32_to_fp16(x[2]), fp32_to_fp16(x[3])};
  __builtin_memcpy(to, h, sizeof(h));
}
inline F load_bf16(const void* from) {
  uint16_t h[kLanes];
  __builtin_memcpy(h, from, sizeof(h));
  return F{bf16_to_fp32(h[0]), bf16_to_fp32(h[1]), bf16_to_fp32(h[2]), bf16_to_fp32(h[3])};
}
// Truncates each 32-bit lane to its low half.
inline void store_low_halves(void* to, I x) {
  const uint16_t h[kLanes] = {static_cast<uint16_t>(x[0]), static_cast<uint16_t>(x[1]), static_cast<uint16_t>(x[2]),
                              static_cast<uint16_t>(x[3])};
  __builtin_memcpy(to, h, sizeof(h));
}
inline F load_bytes_as_mask(const void* from) {
  uint8_t b[kLanes];
  __builtin_memcpy(b, from, sizeof(b));
  return reinterpret_cast<F>(I{b[0], b[1], b[2], b[3]} != 0);
}

inline void prefetch_to_write(const char* line) { __builtin_prefetch(line, 1); }

// Four vectors of one quad each: there is nothing to do.
inline void transpose_quads(F (& /*x*/)[4]) {}

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

attnmux_code run_flash_baseline(const Problem* p, const RunContext* context, attnmux_error* error) {
  return run_flash<Fp32Product, Fp32Product>(*p, *context, error);
}

}  // namespace attnmux
