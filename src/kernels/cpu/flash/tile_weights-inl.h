// SPDX-License-Identifier: Apache-2.0
// The softmax beside whole tiles: scores come in squares of 32 keys by 32 rows, small enough for the first-level cache,
// and leave it as weights.
#pragma once

#include "kernels/cpu/flash/softmax-inl.h"

namespace attnmux {
namespace {

constexpr int64_t kSquareKeys = kBlocking.key_step, kSquareVectors = kBlocking.rows / kLanes;
static_assert(kSquareKeys == 32 && kSquareVectors == 2, "two by two tiles");

// A maximum that has grown by no more than this power of two stays what it was: weights are then as large as 2^8, of
// the same relative accuracy, and what was summed before needs no factor.
constexpr float kMaximumSlack = 8;

// A maximum of no more than this, in base 2, may be scaled before it is subtracted, which makes one multiply-add of
// both: rounding it shifts all exponents of the row by at most 2^6 · 2^-24, a factor of 1 + 2.6e-6, less than the error
// of the polynomial.
constexpr float kScaledMaximum = 64;

// What the weights of a block of rows are relative to.
struct Subtrahend {
  alignas(64) float maximum[kBlocking.rows];  // 0 where there is no key yet: -inf - -inf would be NaN
  alignas(64) float scaled[kBlocking.rows];   // the same in base 2, negative
  bool fused;                                 // may the second form be used?

  void set(const float* maxima, float scale) {
    fused = true;
    for (int64_t i = 0; i < kBlocking.rows; i += kLanes) {
      const F top = load(maxima + i), taken = select(top == broadcast(-kInfinity), zero(), top);
      const F product = taken * broadcast(-scale);
      store(maximum + i, taken);
      store(scaled + i, product);
      fused = fused && all_true((product <= broadcast(kScaledMaximum)) & (product >= broadcast(-kScaledMaximum)));
    }
  }
};

// Makes a square of scores into weights, half of it at a time.
template <class Product>
class WeightsInHalves {
 public:
  explicit WeightsInHalves(float scale) : scale_(scale) {}

  // `kept` (dropout) holds a factor for each score, or is null. Unit u of the weights is row u of `weights`.
  void begin(const float* scores, const float* kept, const Subtrahend& subtrahend, float* sum, float* weights) {
    scores_ = scores;
    kept_ = kept;
    subtrahend_ = &subtrahend;
    sum_ = sum;
    weights_ = weights;
  }
  // To be called twice.
  void half() { subtrahend_->fused ? half_of<true>() : half_of<false>(); }

 private:
  template <bool kFused>
  void half_of() {
    const F factor = broadcast(scale_);
    F shift[kSquareVectors], sum[kSquareVectors];
    ATTNMUX_UNROLL(2)
    for (int64_t j = 0; j < kSquareVectors; ++j) {
      shift[j] = load((kFused ? subtrahend_->scaled : subtrahend_->maximum) + j * kLanes);
      sum[j] = load(sum_ + j * kLanes);
    }
    for (int64_t key = 0; key < kSquareKeys / 2; key += 2) {
      ATTNMUX_UNROLL(2)
      for (int64_t j = 0; j < kSquareVectors; ++j) {
        F p[2];
        ATTNMUX_UNROLL(2)
        for (int64_t e = 0; e < 2; ++e) {
          const F s = load(scores_ + e * kBlocking.rows + j * kLanes);
          p[e] = exp2<Product::kExp2Degree>(kFused ? madd(s, factor, shift[j]) : (s - shift[j]) * factor);
        }
        sum[j] = sum[j] + (p[0] + p[1]);
        if (kept_ != nullptr) {
          p[0] = p[0] * load(kept_ + j * kLanes);
          p[1] = p[1] * load(kept_ + kBlocking.rows + j * kLanes);
        }
        Product::store_weights(weights_ + j * kLanes, p);
      }
      scores_ += 2 * kBlocking.rows;
      if (kept_ != nullptr) kept_ += 2 * kBlocking.rows;
      weights_ += kBlocking.rows;
    }
    ATTNMUX_UNROLL(2)
    for (int64_t j = 0; j < kSquareVectors; ++j) store(sum_ + j * kLanes, sum[j]);
  }

  float scale_;
  const float *scores_ = nullptr, *kept_ = nullptr;
  const Subtrahend* subtrahend_ = nullptr;
  float *sum_ = nullptr, *weights_ = nullptr;
};

// Has the maximum of a row grown so much with a square of scores that the state must follow? Then state.factor is what
// that makes of everything before, and state.maximum and state.sum are up to date.
inline bool raise_maximum(const float* scores, float scale, const SoftmaxState& state) {
  bool raised = false;
  for (int64_t column = 0; column < kBlocking.rows; column += kLanes) {
    const float* at = scores + column;
    F top[4];
    // A NaN is passed over here; it reaches the sum by way of its weight.
    ATTNMUX_UNROLL(4)
    for (int64_t i = 0; i < 4; ++i) top[i] = larger(load(at + i * kBlocking.rows), broadcast(-kInfinity));
    for (int64_t n = 4; n < kSquareKeys; n += 4) {
      ATTNMUX_UNROLL(4)
      for (int64_t i = 0; i < 4; ++i) top[i] = larger(load(at + (n + i) * kBlocking.rows), top[i]);
    }
    const F before = load(state.maximum + column);
    const F high = larger(larger(top[0], top[1]), larger(larger(top[2], top[3]), before));
    const I grown = (high - before) * broadcast(scale) > broadcast(kMaximumSlack);
    F factor = broadcast(1.0f);
    if (!all_true(~grown)) {
      raised = true;
      const F now = select(grown, high, before);
      store(state.maximum + column, now);
      factor = exp2<6>((before - select(now == broadcast(-kInfinity), zero(), now)) * broadcast(scale));
      store(state.sum + column, load(state.sum + column) * factor);
    }
    store(state.factor + column, factor);
  }
  return raised;
}

// Numbers of a row each, `count` per row: result = factor · result.
inline void rescale(const float* factor, int64_t count, float* result) {
  for (int64_t column = 0; column < kBlocking.rows; column += kLanes) {
    const F scale = load(factor + column);
    for (int64_t i = 0; i < count; ++i) {
      float* at = result + i * kBlocking.rows + column;
      store(at, scale * load(at));
    }
  }
}

// The same for weights, which are units of two.
inline void rescale_weights(const float* factor, int64_t units, float* weights) {
  for (int64_t column = 0; column < kBlocking.rows; column += kLanes) {
    const F scale = load(factor + column);
    for (int64_t u = 0; u < units; ++u) {
      float* at = weights + u * kBlocking.rows + column;
      const I pair = bits(load(at));
      store(at, pair_bf16(scale * from_bits(pair << 16), scale * from_bits(pair & static_cast<int32_t>(0xffff0000))));
    }
  }
}

}  // namespace
}  // namespace attnmux
