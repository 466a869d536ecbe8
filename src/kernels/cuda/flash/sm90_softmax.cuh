// SPDX-License-Identifier: Apache-2.0
// Masks by position and the online softmax of a warpgroup's scores. A thread has score[4n + {0, 1}] of row lane/4 and
// the keys 8n + 2(lane%4) + {0, 1}, and score[4n + {2, 3}] of the row 8 further.
#pragma once

#include "kernels/cuda/flash/sm90_schedule.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace attnmux {
namespace {

// Running maximum of products and this lane's part of the running sum of a row.
struct Sm90Row {
  float maximum = -INFINITY, sum = 0;
};

template <int kCount>
__device__ inline void mask_products(const Sm90Positions& positions, int query, int first_key, float (&score)[kCount]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = positions.begin(query + 8 * half) - first_key;
    const int end = positions.end(query + 8 * half) - first_key;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int key = 8 * n + i;
        if (key < first || key >= end) score[4 * n + 2 * half + i] = -INFINITY;
      }
    }
  }
}

// Scores become probabilities 2^((x - maximum)·scale·log2 e); `rescale` is what older sums and outputs shrink by. fmaxf
// ignores NaN; a NaN score makes its probability NaN, and with it sum and output.
template <int kCount>
__device__ inline void softmax_step(float (&score)[kCount], float scale_log2, Sm90Row (&row)[2], float (&rescale)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = row[half].maximum;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n)
      largest = fmaxf(largest, fmaxf(score[4 * n + 2 * half], score[4 * n + 2 * half + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 2));
    // A row without any attended key so far has probabilities of 2^-inf.
    const float newest = largest == -INFINITY ? 0 : largest;
    rescale[half] = ptx::exp2_approximate((row[half].maximum - newest) * scale_log2);
    row[half].maximum = largest;
    const float shift = newest * scale_log2;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& x = score[4 * n + 2 * half + i];
        x = ptx::exp2_approximate(fmaf(x, scale_log2, -shift));
        sum += x;
      }
    }
    row[half].sum = row[half].sum * rescale[half] + sum;
  }
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
}  // namespace attnmux
