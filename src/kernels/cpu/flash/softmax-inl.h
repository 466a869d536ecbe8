// SPDX-License-Identifier: Apache-2.0
// Online softmax (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018) over one block of keys.
#pragma once

#include "kernels/cpu/flash/layout.h"
#include "kernels/cpu/flash/vector-inl.h"

namespace attnmux {
namespace {

// One number per query row. A row's weights are exp2((s - maximum)·scale); `sum` adds them up over the keys so far.
struct SoftmaxState {
  float* maximum;
  float* sum;
  float* factor;  // what the last block's new maximum makes of everything before it

  SoftmaxState at(int64_t column) const { return {maximum + column, sum + column, factor + column}; }
};

// scores[key][row] become weights, as units; `kept` (dropout) holds a factor for each of them, or is null.
// `scale` is in base 2 and positive. The maximum is subtracted before scaling: then no finite score overflows, a row of
// -FLT_MAX averages its keys, and the largest weight is exactly 1 however large the scores are.
template <class Product, int kVectors>
inline void softmax_group(float* scores, const float* kept, int64_t keys, float scale, const SoftmaxState& state) {
  constexpr int64_t kRow = kBlocking.rows;
  F top[kVectors], sum[kVectors];
  ATTNMUX_UNROLL(4)
  for (int j = 0; j < kVectors; ++j) top[j] = broadcast(-kInfinity);
  for (int64_t n = 0; n < keys; ++n) {
    // A NaN is passed over here; it reaches the sum by way of its weight.
    ATTNMUX_UNROLL(4)
    for (int j = 0; j < kVectors; ++j) top[j] = larger(load(scores + n * kRow + j * kLanes), top[j]);
  }
  const F factor = broadcast(scale);
  ATTNMUX_UNROLL(4)
  for (int j = 0; j < kVectors; ++j) {
    const F before = load(state.maximum + j * kLanes);
    const F now = larger(top[j], before);
    store(state.maximum + j * kLanes, now);
    top[j] = select(now == broadcast(-kInfinity), zero(), now);  // no key yet: -inf - -inf would be NaN
    store(state.factor + j * kLanes, exp2<6>((before - top[j]) * factor));
    sum[j] = zero();
  }
  for (int64_t n = 0; n < keys; n += Product::kElements) {
    ATTNMUX_UNROLL(4)
    for (int j = 0; j < kVectors; ++j) {
      F p[Product::kElements];
      ATTNMUX_UNROLL(2)
      for (int e = 0; e < Product::kElements; ++e) {
        const int64_t at = (n + e) * kRow + j * kLanes;
        p[e] = exp2<Product::kExp2Degree>((load(scores + at) - top[j]) * factor);
        sum[j] = sum[j] + p[e];
        if (kept != nullptr) p[e] = p[e] * load(kept + at);
      }
      // Units take the place of the scores: unit u is row u, never above the scores still to be read.
      Product::store_weights(scores + n / Product::kElements * kRow + j * kLanes, p);
    }
  }
  ATTNMUX_UNROLL(4)
  for (int j = 0; j < kVectors; ++j) {
    store(state.sum + j * kLanes, madd(load(state.sum + j * kLanes), load(state.factor + j * kLanes), sum[j]));
  }
}

template <class Product>
void softmax(float* scores, const float* kept, int64_t keys, int64_t vectors, float scale, const SoftmaxState& state) {
  for (int64_t v = 0; v < vectors;) {
    const int64_t column = v * kLanes;
    const auto group = [&]<int kVectors>() {
      if constexpr (kVectors <= kGroup) {
        if (kept == nullptr) {
          softmax_group<Product, kVectors>(scores + column, nullptr, keys, scale, state.at(column));
        } else {
          softmax_group<Product, kVectors>(scores + column, kept + column, keys, scale, state.at(column));
        }
      }
    };
    const int64_t take = min_of(kGroup, vectors - v);
    switch (take) {
      case 1:
        group.template operator()<1>();
        break;
      case 2:
        group.template operator()<2>();
        break;
      case 3:
        group.template operator()<3>();
        break;
      default:
        group.template operator()<4>();
        break;
    }
    v += take;
  }
}

}  // namespace
}  // namespace attnmux
