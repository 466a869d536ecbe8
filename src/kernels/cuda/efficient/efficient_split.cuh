// SPDX-License-Identifier: Apache-2.0
// fp32 products on fp16 tensor cores: x = unit·(big + small), where `unit` is a power of two per row that brings the
// largest element of the row to [2^14, 2^15), and `big` and `small` are halves. a·b is then
//
//   big·big + big·small + small·big
//
// times both units. Rounding leaves at most 2^-23 of an element, or 2^-40 of the largest in its row where that is more;
// the product small·small, which is left out, is at most 2^-22 of a·b. Both are of the size of fp32's own roundings, of
// which a sum of D products has D. TF32 in place of fp16 would have the same 11 bits at half the rate; its exponents
// are what the units stand in for.
//
// Tensor cores cut what does not fit into the sum that they return, so a long chain of them drifts towards zero by one
// bit per step: the callers add short chains of big·big together in fp32, rounded to nearest (Ootomo and Yokota,
// "Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance",
// 2022). The other two products are 2^-11 as large, so that their chains may be long.
#pragma once

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace attnmux {
namespace {

struct HalfPairs {
  uint32_t big, small;
};

__device__ inline HalfPairs split_pair(float a, float b) {
  const uint32_t big = ptx::pack<__half>(a, b);
  const float2 rounded = __half22float2(*reinterpret_cast<const __half2*>(&big));
  return {big, ptx::pack<__half>(a - rounded.x, b - rounded.y)};
}

// 2^e as a float is e + 127 in its upper bits.
constexpr uint32_t kExponentOne = 1u << 23;
__device__ inline float power_of_two(uint32_t field) { return __uint_as_float(field << 23); }
__device__ inline uint32_t exponent_field(float x) { return __float_as_uint(x) >> 23; }

// The largest element of a row in its units is in [2^kTop, 2^(kTop+1)).
constexpr uint32_t kTop = 14;
// Units stay within these powers of two, so that their reciprocals and some more powers of two are normal numbers.
constexpr uint32_t kSmallestUnit = 27, kLargestUnit = 254 - kTop;

// `largest`: of the absolute values in a row. A row that holds an infinity keeps its numbers as they are: its products
// are not finite, whatever they are multiplied by.
__device__ inline float unit_of(float largest) {
  if (largest == 0) return 0;
  const uint32_t field = exponent_field(largest);
  return field == 255 ? 1.0f : power_of_two(max(field, kSmallestUnit + kTop) - kTop);
}
__device__ inline float reciprocal_of_unit(float unit) {
  return unit == 0 ? 1.0f : power_of_two(254 - exponent_field(unit));
}

}  // namespace
}  // namespace attnmux
