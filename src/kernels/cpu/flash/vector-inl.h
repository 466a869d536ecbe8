// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary of the flash kernels, built on the few names that an instruction set supplies:
//
//   F, I                  a vector of fp32, of int32; arithmetic and comparisons are GCC's vector operators
//   kLanes                numbers in one
//   kGroup                vectors of queries that the micro-kernel holds at a time
//   kAccumulators         sums that it keeps in registers, enough to hide the latency of a multiply-add
//   broadcast(x)          x in every lane
//   madd(a, b, c)         a·b + c
//   larger, smaller(a, b) maximum and minimum; b if one of them is NaN
//   all_true(condition)   of a comparison's result
//   all_finite(x)         neither an infinity nor a NaN
//   multiply_even(a, b)   unsigned 64-bit products of the even lanes
//   zip(a, b, low, high)  a0 b0 a1 b1 …, the only shuffle there is: packing and transposing are rounds of it
//   load_fp16, load_bf16, store_fp16, store_low_halves, load_bytes_as_mask: conversions, contiguous and unaligned
//   exp2_with(x, polynomial), prefetch_to_write(line)
//   transpose(x)          kLanes vectors of kLanes numbers
//   transpose_quads(x)    four vectors; see there
//   copy_some(to, from, bytes)  fewer bytes than a vector has; touches nothing behind them
//   pair_bf16(low, high)  bf16 of both in a unit
#pragma once

#include <cstdint>

#if defined(__clang__)
#define ATTNMUX_UNROLL(n) _Pragma("unroll")
#else
#define ATTNMUX_PRAGMA(text) _Pragma(#text)
#define ATTNMUX_UNROLL(n) ATTNMUX_PRAGMA(GCC unroll n)
#endif

namespace attnmux {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr float kLargest = __FLT_MAX__;
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

inline F load(const float* from) {
  F x;
  __builtin_memcpy(&x, from, sizeof(x));
  return x;
}
inline void store(float* to, F x) { __builtin_memcpy(to, &x, sizeof(x)); }
inline I load_int(const int32_t* from) {
  I x;
  __builtin_memcpy(&x, from, sizeof(x));
  return x;
}
inline F zero() { return F{}; }
inline I bits(F x) { return reinterpret_cast<I>(x); }
inline F from_bits(I x) { return reinterpret_cast<F>(x); }
inline bool all_finite_by_exponent(F x) { return all_true((bits(x) & 0x7f800000) != 0x7f800000); }
// Only NaN differs from itself.
inline I is_nan(F x) { return x != x; }  // NOLINT(misc-redundant-expression)
inline F select(I condition, F yes, F no) { return condition ? yes : no; }

// Rounds to bfloat16, to nearest even; NaN stays NaN. The result is in the low half of each lane.
inline I round_to_bf16(F x) {
  const I b = bits(x);
  const I rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
  return is_nan(x) ? (b >> 16 | 0x40) : rounded;
}
inline F pair_bf16_by_rounding(F low, F high) {
  return from_bits((round_to_bf16(low) & 0xffff) | (round_to_bf16(high) << 16));
}

// copy_some for instruction sets without masked loads of bytes.
inline void copy_by_halves(char* to, const char* from, int64_t bytes) {
  for (int64_t step = kLanes * 2; step > 0; step /= 2) {
    if ((bytes & step) == 0) continue;
    __builtin_memcpy(to, from, static_cast<size_t>(step));
    to += step;
    from += step;
  }
}

// ---- 2^x ------------------------------------------------------------------------------------------------------------

// Minimax polynomials for 2^f, relative error 2.9e-6 (degree 4), 9e-8 (5), 2e-9 (6), on [0, 1) and on [-1/2, 1/2].
// They are exactly 1 at 0: a maximum that did not change must not shrink what was summed before it.
template <int kDegree>
struct Exp2Polynomial {
  static F horner(F f, const float* c) {
    F sum = broadcast(c[kDegree]);
    ATTNMUX_UNROLL(8)
    for (int i = kDegree - 1; i >= 0; --i) sum = madd(sum, f, broadcast(c[i]));
    return sum;
  }
  static F from_zero(F f) {
    constexpr float kFour[] = {1, 0x1.62d6c6p-1f, 0x1.ee2450p-3f, 0x1.abf868p-5f, 0x1.b7f730p-7f};
    constexpr float kFive[] = {1, 0x1.62e4bap-1f, 0x1.ebdb56p-3f, 0x1.c91ce6p-5f, 0x1.277854p-7f, 0x1.e974fcp-10f};
    constexpr float kSix[] = {
        1, 0x1.62e42cp-1f, 0x1.ebfd58p-3f, 0x1.c68912p-5f, 0x1.3d0b92p-7f, 0x1.46d64cp-10f, 0x1.c54176p-13f};
    return horner(f, kDegree == 4 ? kFour : kDegree == 5 ? kFive : kSix);
  }
  static F around_zero(F f) {
    constexpr float kFour[] = {1, 0x1.62e0dcp-1f, 0x1.ec06dap-3f, 0x1.ca1440p-5f, 0x1.3997d6p-7f};
    constexpr float kFive[] = {1, 0x1.62e42ap-1f, 0x1.ebf9bcp-3f, 0x1.c6b752p-5f, 0x1.3cea88p-7f, 0x1.5bba14p-10f};
    constexpr float kSix[] = {
        1, 0x1.62e430p-1f, 0x1.ebfbdcp-3f, 0x1.c6aee8p-5f, 0x1.3b2d4cp-7f, 0x1.5f3e54p-10f, 0x1.41fbbcp-13f};
    return horner(f, kDegree == 4 ? kFour : kDegree == 5 ? kFive : kSix);
  }
};

// 2^x for x <= 0; 0 for minus infinity, NaN for NaN.
template <int kDegree>
inline F exp2(F x) {
  return exp2_with(x, Exp2Polynomial<kDegree>{});
}

// exp2_with for instruction sets without vscalefps. Adding 1.5·2^23 leaves round(x) in the low bits of the sum; shifted
// into the exponent it is 2^round(x). At -127 the exponent field is zero, and so is the result.
template <typename Polynomial>
inline F exp2_by_shift(F x, Polynomial polynomial) {
  const F magic = broadcast(0x1.8p23f);
  x = larger(broadcast(-127.0f), x);
  const F sum = x + magic;
  const F power = from_bits((bits(sum) << 23) + 0x3f800000);
  return polynomial.around_zero(x - (sum - magic)) * power;
}

// tanh with a relative error of about an ulp: an odd minimax polynomial near zero, else 1 - 2 / (e^2|x| + 1), where
// e^2|x| + 1 is 1 / (2^-y) + 1 with y >= 0, so that nothing overflows.
inline F tanh(F x) {
  const F magnitude = from_bits(bits(x) & 0x7fffffff);
  const I sign = bits(x) & static_cast<int32_t>(0x80000000);
  const F z = x * x;
  F odd = broadcast(-0x1.75e1cap-8f);
  odd = madd(odd, z, broadcast(0x1.52269ap-6f));
  odd = madd(odd, z, broadcast(-0x1.b83c5ap-5f));
  odd = madd(odd, z, broadcast(0x1.110726p-3f));
  odd = madd(odd, z, broadcast(-0x1.555532p-2f));
  const F small = madd(odd * z, x, x);
  const F e = exp2<6>(magnitude * broadcast(static_cast<float>(-2 * kLog2E)));
  const F large = broadcast(1.0f) - (e + e) / (e + broadcast(1.0f));
  return select(magnitude < broadcast(0.625f), small, from_bits(bits(large) | sign));
}

// ---- Products -------------------------------------------------------------------------------------------------------

// Units of one fp32.
struct Fp32Product {
  static constexpr int kElements = 1;
  static constexpr int kExp2Degree = 5;
  static F madd(F a, F b, F c) { return attnmux::madd(a, b, c); }
  static void store_weights(float* to, const F (&p)[1]) { store(to, p[0]); }
};

// ---- Transposing ----------------------------------------------------------------------------------------------------

// kLanes vectors of kLanes numbers: a perfect shuffle per bit of the index.
inline void transpose_by_zips(F (&x)[kLanes]) {
  F y[kLanes];
  ATTNMUX_UNROLL(4)
  for (int round = 1; round < kLanes; round *= 4) {
    ATTNMUX_UNROLL(16)
    for (int i = 0; i < kLanes / 2; ++i) zip(x[i], x[i + kLanes / 2], y[2 * i], y[2 * i + 1]);
    if (round * 2 < kLanes) {
      ATTNMUX_UNROLL(16)
      for (int i = 0; i < kLanes / 2; ++i) zip(y[i], y[i + kLanes / 2], x[2 * i], x[2 * i + 1]);
    } else {
      ATTNMUX_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) x[i] = y[i];
    }
  }
}

}  // namespace
}  // namespace attnmux
