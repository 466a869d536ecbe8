// SPDX-License-Identifier: Apache-2.0
// Masks by position and the online softmax of a warpgroup's scores. A thread has score[4n + {0, 1}] of row lane/4 and
// the keys 8n + 2(lane%4) + {0, 1}, and score[4n + {2, 3}] of the row 8 further.
#pragma once

#include "kernels/cuda/flash/joint/sm90_schedule.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace attnmux::joint {
namespace {

// Running maximum of products and this lane's part of the running sum of a row.
struct Sm90Row {
  float maximum = -INFINITY, sum = 0;
};

template <int kCount>
__device__ inline void mask_products(const Sm90Positions& positions, int query, int first_key, float (&score)[kCount]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int end = positions.end(query + 8 * half) - first_key;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (8 * n + i >= end) score[4 * n + 2 * half + i] = -INFINITY;
      }
    }
  }
  if (positions.first <= kAnyPosition.first && positions.begin_key == 0) return;  // no window, no padding before
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = positions.begin(query + 8 * half) - first_key;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (8 * n + i < first) score[4 * n + 2 * half + i] = -INFINITY;
      }
    }
  }
}

// The maximum only keeps exponents in range, so an older one does as well while it is not more than kStale powers of
// two behind (FlashAttention-4, 2026): probabilities then are up to 2^kStale, which sums in fp32 and 16-bit floats hold
// with the same relative error.
constexpr float kStale = 8;

// Scores become probabilities 2^((x - maximum)·scale·log2 e). A NaN score makes its probability NaN,
// and with it sum and output.
template <int kCount>
__device__ inline void exponentiate(float (&score)[kCount], float scale_log2, const Sm90Row (&row)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // A row without any attended key so far has probabilities of 2^-inf.
    const float reference = row[half].maximum == -INFINITY ? 0 : row[half].maximum, shift = reference * scale_log2;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& x = score[4 * n + 2 * half + i];
        x = ptx::exp2_approximate(fmaf(x, scale_log2, -shift));
      }
    }
  }
}

// Probabilities by the largest scores so far; `rescale` is what older sums and outputs shrink by. False if it is 1 for
// all rows of the warp. fmaxf ignores NaN.
template <bool kLazy, int kCount>
__device__ inline bool softmax_step(float (&score)[kCount], float scale_log2, Sm90Row (&row)[2], float (&rescale)[2]) {
  float largest[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    largest[half] = row[half].maximum;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n)
      largest[half] = fmaxf(largest[half], fmaxf(score[4 * n + 2 * half], score[4 * n + 2 * half + 1]));
    largest[half] = fmaxf(largest[half], __shfl_xor_sync(0xFFFFFFFFu, largest[half], 1));
    largest[half] = fmaxf(largest[half], __shfl_xor_sync(0xFFFFFFFFu, largest[half], 2));
  }
  bool renew = true;
  if constexpr (kLazy) {
    renew = __any_sync(0xFFFFFFFFu, (largest[0] - row[0].maximum) * scale_log2 > kStale ||
                                        (largest[1] - row[1].maximum) * scale_log2 > kStale);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (renew) {
      // A row without any attended key so far has probabilities of 2^-inf.
      const float newest = largest[half] == -INFINITY ? 0 : largest[half];
      rescale[half] = ptx::exp2_approximate((row[half].maximum - newest) * scale_log2);
      row[half].maximum = largest[half];
      row[half].sum *= rescale[half];
    }
  }
  exponentiate(score, scale_log2, row);
  return renew;
}

// The sums are added up apart from the exponentials: next to them, each addition would wait for the exponential just
// begun, and the unit of exponentials for the addition.
template <int kCount>
__device__ inline void sum_probabilities(const float (&score)[kCount], float (&sum)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float part[2] = {};
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) part[i] += score[4 * n + 2 * half + i];
    }
    sum[half] = part[0] + part[1];
  }
}

// Has every row of the warp had a key?
__device__ inline bool have_maxima(const Sm90Row (&row)[2]) {
  return __all_sync(0xFFFFFFFFu, row[0].maximum != -INFINITY && row[1].maximum != -INFINITY);
}

// Probabilities by older maxima are good while their sums stay far from the largest 16-bit float; a row without any
// maximum has none. All lanes of the warp get the same answer.
__device__ inline bool outgrown(const float (&sum)[2], const Sm90Row (&row)[2]) {
  constexpr float kMost = 8192;
  return __any_sync(0xFFFFFFFFu,
                    sum[0] > kMost || sum[1] > kMost || row[0].maximum == -INFINITY || row[1].maximum == -INFINITY);
}

__device__ inline float log_sum_exp(float maximum, float sum, float scale_log2) {
  return (maximum * scale_log2 + log2f(sum)) * 0.6931471805599453f;  // the same rounded product as in the exponents
}

// The layout of a product's result is that of a left factor: P needs no shuffle.
template <typename T, int kCount>
__device__ inline void pack_probabilities(const float (&score)[kCount], uint32_t (&p)[kCount / 8][4]) {
#pragma unroll
  for (int k = 0; k < kCount / 8; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) p[k][i] = ptx::pack<T>(score[8 * k + 2 * i], score[8 * k + 2 * i + 1]);
  }
}

}  // namespace
}  // namespace attnmux::joint
