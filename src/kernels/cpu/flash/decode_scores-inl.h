// SPDX-License-Identifier: Apache-2.0
// Scores and weights of few queries. Lanes run along the head dimension: kLanes sums of kKeys keys times kRows rows are
// reduced at once by a tree of zips and additions, which leaves key i, row r in lane i·kRows + r: vectors of scores,
// ready for the softmax.
#pragma once

#include <utility>

#include "kernels/cpu/flash/decode_rows-inl.h"
#include "kernels/cpu/flash/masks-inl.h"
#include "kernels/cpu/flash/pack-inl.h"

namespace attnmux {
namespace {

// ---- Scores ---------------------------------------------------------------------------------------------------------

// kLanes sums become one vector: lane i is the sum of the lanes of x[i]. By recursion, so that x stays in registers.
template <int kHalf = kLanes / 2>
inline F add_lanes(F (&x)[kLanes]) {
  ATTNMUX_UNROLL(8)
  for (int i = 0; i < kHalf; ++i) {
    F low, high;
    zip(x[i], x[i + kHalf], low, high);
    x[i] = low + high;
  }
  if constexpr (kHalf > 1) return add_lanes<kHalf / 2>(x);
  return x[0];
}

// Fetches the rows of V meanwhile: the products of a block hide the wait for its values.
template <class Product, Source kSource, int kRows>
inline void decode_scores(const Problem& p, const DecodeBlock& block, const float* queries, int64_t query_units,
                          FetchRows fetch, float* scores) {
  constexpr int kKeys = kLanes / kRows;
  constexpr int64_t kChunk = kLanes * kSourceBytes<kSource>;
  constexpr int kHalves = kParts<kSource>;
  const int64_t size = element_bytes(p.dtype), bytes = p.head_dim * size, whole = bytes / kChunk * kChunk;
  for (int64_t n = 0; n < block.count; n += kKeys) {
    const char* k[kKeys];
    for (int i = 0; i < kKeys; ++i) {
      const int64_t key = min_of(n + i, block.count - 1);
      k[i] = block.k[key];
    }
    F sum[kLanes] = {};
    const float* q = queries;
    for (int64_t at = 0; at < whole; at += kChunk, q += kHalves * kLanes) {
      fetch.lines(kKeys * kChunk / kCacheLine);
      ATTNMUX_UNROLL(2)
      for (int part = 0; part < kHalves; ++part) {
        F row[kRows];
        ATTNMUX_UNROLL(4)
        for (int r = 0; r < kRows; ++r) row[r] = load(q + part * kLanes + r * query_units);
        ATTNMUX_UNROLL(16)
        for (int i = 0; i < kKeys; ++i) {
          const F key = part_of<kSource>(load_lanes<kSource>(k[i] + at), part);
          ATTNMUX_UNROLL(4)
          for (int r = 0; r < kRows; ++r) sum[i * kRows + r] = Product::madd(key, row[r], sum[i * kRows + r]);
        }
      }
    }
    fetch.rows_until(block.v + n + kKeys);
    if (whole < bytes) {
      ATTNMUX_UNROLL(16)
      for (int i = 0; i < kKeys; ++i) {
        const F both = load_some<kSource>(k[i] + whole, bytes - whole);
        ATTNMUX_UNROLL(2)
        for (int part = 0; part < kHalves; ++part) {
          const F key = part_of<kSource>(both, part);
          ATTNMUX_UNROLL(4)
          for (int r = 0; r < kRows; ++r)
            sum[i * kRows + r] = Product::madd(key, load(q + part * kLanes + r * query_units), sum[i * kRows + r]);
        }
      }
    }
    store(scores + n * kRows, add_lanes(sum));
  }
}

// Everything between the product and the softmax, for the block's rows [first_row, first_row + kRows), of which `rows`
// exist. Masks and biases go element by element: that is little beside the head_dim products of each.
template <int kRows>
inline void adjust_decode_scores(const Problem& p, const Scale& scale, const DecodeRows& all, const DecodeBlock& block,
                                 int64_t first_row, int64_t rows, float* scores) {
  const int64_t floats = round_up(block.count, kLanes / kRows) * kRows;
  if (scale.adjusts) {
    const auto cap = static_cast<float>(p.softcap);
    const F factor = broadcast(cap > 0 ? scale.magnitude / cap : scale.magnitude);
    for (int64_t i = 0; i < floats; i += kLanes) {
      const F s = load(scores + i) * factor;
      store(scores + i, cap > 0 ? broadcast(cap) * tanh(s) : s);
    }
  }
  if (given(p.bias)) {
    const Tensor& t = p.bias;
    for (int64_t r = 0; r < rows; ++r) {
      const char* bias = score_row(t, all.batch, all.head[first_row + r], all.query[first_row + r]);
      for (int64_t n = 0; n < block.count; ++n) {
        float& s = scores[n * kRows + r];
        s = add_bias(broadcast(s), load_one(t.dtype, bias + block.key[n] * t.strides[3] * element_bytes(t.dtype)))[0];
      }
    }
  }
  if (block.edge) {
    for (int64_t r = 0; r < rows; ++r) {
      const KeyRange keys = all.keys[first_row + r];
      for (int64_t n = 0; n < block.count; ++n) {
        if (block.key[n] < keys.first || block.key[n] >= keys.last) scores[n * kRows + r] = -kInfinity;
      }
    }
  }
  if (given(p.dense_mask)) {
    for (int64_t r = 0; r < rows; ++r) {
      const char* mask = score_row(p.dense_mask, all.batch, all.head[first_row + r], all.query[first_row + r]);
      for (int64_t n = 0; n < block.count; ++n) {
        if (mask[block.key[n] * p.dense_mask.strides[3]] == 0) scores[n * kRows + r] = -kInfinity;
      }
    }
  }
}

// ---- Softmax --------------------------------------------------------------------------------------------------------

// A number per row, in the lanes of each of its keys.
template <int kRows>
inline F spread(const float* numbers) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = numbers[i % kRows];
  return load(lanes);
}

template <int kBy, int... kLane>
inline F rotate_lanes(F x, std::integer_sequence<int, kLane...> /*lanes*/) {
  return __builtin_shufflevector(x, x, ((kLane + kBy) % kLanes)...);
}

// The lanes of a row, kRows apart, become what `combine` makes of all of them. No number leaves the vectors on the way:
// a vector of numbers that were stored one by one is loaded late.
template <int kRows, int kBy = kLanes / 2, class Combine>
inline F over_keys(F x, const Combine& combine) {
  if constexpr (kBy < kRows) {
    return x;
  } else {
    return over_keys<kRows, kBy / 2>(combine(rotate_lanes<kBy>(x, std::make_integer_sequence<int, kLanes>{}), x),
                                     combine);
  }
}

// Scores become weights, as units: unit u holds the keys of the vectors u·kElements … u·kElements + kElements - 1, lane
// by lane. factor[r] is what the new maximum makes of everything before, if something was `started`.
template <class Product, int kRows>
inline void decode_softmax(const Problem& p, const DecodeRows& all, const DecodeBlock& block, int64_t first_row,
                           float base2, bool started, float* scores, float* maximum, float* sum, float* factor) {
  constexpr int64_t kKeys = kLanes / kRows;
  const int64_t whole = block.count * kRows, floats = round_up(block.count, kKeys * Product::kElements) * kRows;
  for (int64_t i = whole; i < floats; ++i) scores[i] = -kInfinity;
  const F scale = broadcast(base2);
  F top = broadcast(-kInfinity);
  for (int64_t i = 0; i < floats; i += kLanes) top = larger(load(scores + i), top);
  top = over_keys<kRows>(top, [](F a, F b) { return larger(a, b); });
  if (started) top = larger(top, spread<kRows>(maximum));
  const F shift = select(top == broadcast(-kInfinity), zero(), top);  // no key yet: -inf - -inf would be NaN
  float lanes[kLanes];
  if (started) {
    store(lanes, exp2<6>((spread<kRows>(maximum) - shift) * scale));
    for (int r = 0; r < kRows; ++r) factor[r] = lanes[r];
  } else {
    for (int r = 0; r < kRows; ++r) factor[r] = 0;
  }
  store(lanes, top);
  for (int r = 0; r < kRows; ++r) maximum[r] = lanes[r];

  F total = zero();
  for (int64_t i = 0; i < floats; i += kLanes * Product::kElements) {
    F weight[Product::kElements];
    for (int e = 0; e < Product::kElements; ++e) {
      weight[e] = exp2<Product::kExp2Degree>((load(scores + i + e * kLanes) - shift) * scale);
      total = total + weight[e];
      if (p.dropout_p > 0) {
        const auto kept = static_cast<float>(1 / (1 - p.dropout_p));
        store(lanes, weight[e]);
        for (int64_t j = 0; j < kLanes; ++j) {
          const int64_t n = (i + e * kLanes + j) / kRows, r = j % kRows;
          const int64_t row = first_row + r;
          if (n >= block.count || row >= all.count) continue;
          lanes[j] *= dropout_keeps(p, all.batch, all.head[row], all.query[row], block.key[n]) ? kept : 0;
        }
        weight[e] = load(lanes);
      }
    }
    Product::store_weights(scores + i / Product::kElements, weight);
  }
  store(lanes, over_keys<kRows>(total, [](F a, F b) { return a + b; }));
  for (int r = 0; r < kRows; ++r) sum[r] = sum[r] * factor[r] + lanes[r];
}

}  // namespace
}  // namespace attnmux
