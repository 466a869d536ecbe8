// SPDX-License-Identifier: Apache-2.0
// Hooks between the two products: from products to finished scores. Bias and masks are read where they lie, by the
// lanes that hold the scores.
#pragma once

#include <cfloat>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/flash/sm90_schedule.cuh"

namespace attnmux {
namespace {

// Finite values stay finite; an additive -inf hides, whatever the key holds; other infinities and NaN propagate.
__device__ inline float add_bias(float score, float bias) {
  const float sum = score + bias;
  if (fabsf(sum) < INFINITY) return sum;
  if (bias == -INFINITY) return -INFINITY;
  return isfinite(score) && isfinite(bias) ? copysignf(FLT_MAX, sum) : sum;
}

// Calls act(score, offset) for the scores whose query and key exist; offset is theirs in a (B, H, Sq, Skv) tensor.
template <int kCount, typename Act>
__device__ inline void for_scores(const Tensor& t, const Sm90Work& w, int query, int key, float (&score)[kCount],
                                  const Act& act) {
  const int64_t base = w.b * t.strides[0] + w.head * t.strides[1];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = query + 8 * half;
    if (row >= w.sequence.queries) continue;
    const int64_t at = base + row * t.strides[2] + key * t.strides[3];
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (key + 8 * n + i < w.positions.length) act(score[4 * n + 2 * half + i], at + (8 * n + i) * t.strides[3]);
      }
    }
  }
}

// `query` and `key` are those of the thread's first score.
template <int kCount>
__device__ inline void finish_scores(const Problem& p, const Sm90Work& w, int query, int key, float (&score)[kCount]) {
  const auto scale = static_cast<float>(p.scale), softcap = static_cast<float>(p.softcap);
  if (softcap > 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) score[i] = softcap * tanhf(score[i] * scale / softcap);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) score[i] *= scale;
  }
  if (given(p.bias)) {
    for_scores(p.bias, w, query, key, score, [&](float& x, int64_t at) { x = add_bias(x, load_bias(p.bias, at)); });
  }
  if (given(p.dense_mask)) {
    for_scores(p.dense_mask, w, query, key, score, [&](float& x, int64_t at) {
      if (!attends(p.dense_mask, at)) x = -INFINITY;
    });
  }
  if (given(p.key_padding)) {
    Tensor rows = p.key_padding;  // the same for all heads and queries
    rows.strides[3] = rows.strides[1];
    rows.strides[1] = rows.strides[2] = 0;
    for_scores(rows, w, query, key, score, [&](float& x, int64_t at) {
      if (!attends(p.key_padding, at)) x = -INFINITY;
    });
  }
}

}  // namespace
}  // namespace attnmux
