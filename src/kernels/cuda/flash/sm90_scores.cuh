// SPDX-License-Identifier: Apache-2.0
// Hooks between the two products: from products to finished scores, with softcap and an additive bias.
#pragma once

#include <cfloat>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/kernel.h"

namespace attnmux {
namespace {

// Finite values stay finite; an additive -inf hides, whatever the key holds; other infinities and NaN propagate.
__device__ inline float add_bias(float score, float bias) {
  const float sum = score + bias;
  if (fabsf(sum) < INFINITY) return sum;
  if (bias == -INFINITY) return -INFINITY;
  return isfinite(score) && isfinite(bias) ? copysignf(FLT_MAX, sum) : sum;
}

// The bias of a lane's scores in shared memory: pages of 128 bytes a row, swizzled as the other tiles.
template <typename Bias>
struct Sm90BiasPairs {
  static constexpr int kEights = 128 / (8 * sizeof(Bias));  // eights of keys in a page
  uint32_t tile;                                            // the lane's row in the first page
  uint32_t page_bytes, next_row, swizzle;                   // to the next page; to the row 8 further; of the row

  // Where two neighbours of eight n lie.
  __device__ uint32_t at(int n, int half) const {
    const auto within = static_cast<uint32_t>((n % kEights * 8 + static_cast<int>(threadIdx.x) % 4 * 2) * sizeof(Bias));
    return tile + (within ^ swizzle) + n / kEights * page_bytes + static_cast<uint32_t>(half) * next_row;
  }
  __device__ float2 load(int n, int half) const {
    if constexpr (sizeof(Bias) == 4) {
      return ptx::load_shared_float2(at(n, half));
    } else {
      const uint32_t word = ptx::load_shared_4(at(n, half));
      if constexpr (__is_same(Bias, __half)) return __half22float2(*reinterpret_cast<const __half2*>(&word));
      return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u));
    }
  }
  // Is some element infinite, NaN, or so large that a sum may overflow?
  template <int kCount>
  __device__ bool extreme() const {
    uint32_t largest = 0;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if constexpr (sizeof(Bias) == 4) {
          const float2 pair = ptx::load_shared_float2(at(n, half));
          largest = max(largest, max(__float_as_uint(pair.x) & 0x7FFFFFFFu, __float_as_uint(pair.y) & 0x7FFFFFFFu));
        } else {
          largest = __vmaxu2(largest, ptx::load_shared_4(at(n, half)) & 0x7FFF7FFFu);
        }
      }
    }
    // From 2^126 on in the formats that have fp32's exponents.
    constexpr uint32_t kLimit = sizeof(Bias) == 4 ? 0x7E800000u : __is_same(Bias, __half) ? 0x7C00u : 0x7E80u;
    if constexpr (sizeof(Bias) == 4) return largest >= kLimit;
    return (largest & 0xFFFFu) >= kLimit || largest >> 16 >= kLimit;
  }
  // Products become scale·product + bias.
  template <int kCount>
  __device__ void add(float scale, bool careful, float (&score)[kCount]) const {
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 bias = load(n, half);
        float &left = score[4 * n + 2 * half], &right = score[4 * n + 2 * half + 1];
        if (careful) {
          left = add_bias(left * scale, bias.x);
          right = add_bias(right * scale, bias.y);
        } else {
          left = fmaf(left, scale, bias.x);
          right = fmaf(right, scale, bias.y);
        }
      }
    }
  }
};

template <int kCount>
__device__ inline void scale_scores(float scale, float (&score)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) score[i] *= scale;
}

template <int kCount>
__device__ inline void cap_scores(float scale, float softcap, float (&score)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) score[i] = softcap * tanhf(score[i] * scale / softcap);
}

}  // namespace
}  // namespace attnmux
