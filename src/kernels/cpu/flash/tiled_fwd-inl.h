// SPDX-License-Identifier: Apache-2.0
// The loop over keys for tiles. The tile unit and the vector units are different parts of the core, and the softmax of
// a block takes about as long as its products: so while the vectors make weights of one block of scores, the tiles
// compute the scores of the next block and the output of the one before. The instructions of both are mixed finely
// enough for the core to run them at the same time: 1.06 to 1.23 times as fast as one after the other.
#pragma once

#include "kernels/cpu/flash/flash_fwd-inl.h"
#include "kernels/cpu/flash/tiles-inl.h"

namespace attnmux {
namespace {

// A maximum that has grown by no more than this power of two stays what it was: weights are then as large as 2^8, of
// the same relative accuracy, and what was summed before needs no factor.
constexpr float kMaximumSlack = 8;

// Makes scores of one block into weights, two keys at a time.
template <class Product>
class WeightsInSlices {
 public:
  WeightsInSlices(float scale, const SoftmaxState& state, const float* subtrahend)
      : scale_(scale), sum_(state.sum), subtrahend_(subtrahend) {}

  // Spread over `steps` calls of step(); finish() does what is left.
  void begin(float* scores, const float* kept, int64_t keys, int64_t steps) {
    scores_ = scores;
    kept_ = kept;
    key_ = 0;
    keys_ = keys;
    position_ = 0;
    increment_ = (keys / 2 << 16) / max_of(steps, 1) + 1;
  }
  void step() {
    position_ += increment_;
    for (const int64_t end = min_of(keys_, (position_ >> 16) * 2); key_ < end; key_ += 2) slice();
  }
  void finish() {
    for (; key_ < keys_; key_ += 2) slice();
  }

 private:
  void slice() {
    const F factor = broadcast(scale_);
    const float* from = scores_ + key_ * kBlocking.rows;
    ATTNMUX_UNROLL(4)
    for (int j = 0; j < kGroup; ++j) {
      const F top = load(subtrahend_ + j * kLanes);
      F p[2];
      p[0] = exp2<Product::kExp2Degree>((load(from + j * kLanes) - top) * factor);
      p[1] = exp2<Product::kExp2Degree>((load(from + kBlocking.rows + j * kLanes) - top) * factor);
      store(sum_ + j * kLanes, load(sum_ + j * kLanes) + (p[0] + p[1]));
      if (kept_ != nullptr) {
        p[0] = p[0] * load(kept_ + key_ * kBlocking.rows + j * kLanes);
        p[1] = p[1] * load(kept_ + (key_ + 1) * kBlocking.rows + j * kLanes);
      }
      // Units take the place of the scores: unit u is row u, never above the scores still to be read.
      Product::store_weights(scores_ + key_ / 2 * kBlocking.rows + j * kLanes, p);
    }
  }

  float scale_;
  float* sum_;
  const float* subtrahend_;
  float* scores_ = nullptr;
  const float* kept_ = nullptr;
  int64_t key_ = 0, keys_ = 0, position_ = 0, increment_ = 0;
};

// Beside the product that makes scores: weights of another block, and the maxima of these scores, of each block of
// tiles when the next one is done, so that it has been written by then.
template <class Weights>
class DuringScores {
 public:
  DuringScores(Weights& weights, float* top) : weights_(weights), top_(top) {
    for (int64_t i = 0; i < kBlocking.rows; i += kLanes) store(top + i, broadcast(-kInfinity));
  }
  void after_step() { weights_.step(); }
  void after_block(const float* result, int64_t v) {
    take_maxima();
    block_ = result;
    vector_ = v;
  }
  void take_maxima() {
    if (block_ == nullptr) return;
    F top[2] = {load(top_ + vector_ * kLanes), load(top_ + (vector_ + 1) * kLanes)};
    for (int64_t n = 0; n < 2 * kSquare; ++n) {
      top[0] = larger(load(block_ + n * kBlocking.rows), top[0]);
      top[1] = larger(load(block_ + n * kBlocking.rows + kLanes), top[1]);
    }
    store(top_ + vector_ * kLanes, top[0]);
    store(top_ + (vector_ + 1) * kLanes, top[1]);
    block_ = nullptr;
  }

 private:
  Weights& weights_;
  float* top_;
  const float* block_ = nullptr;
  int64_t vector_ = 0;
};

template <class Weights>
struct DuringValues {
  Weights& weights;
  void after_step() { weights.step(); }
  void after_block(const float* /*result*/, int64_t /*v*/) {}
};

inline void take_maxima(const float* scores, int64_t keys, float* top) {
  for (int j = 0; j < kGroup; ++j) {
    F most = broadcast(-kInfinity);
    for (int64_t n = 0; n < keys; ++n) most = larger(load(scores + n * kBlocking.rows + j * kLanes), most);
    store(top + j * kLanes, most);
  }
}

// The maxima `top` of a new block join the state.
inline void raise_maximum(const float* top, float scale, const SoftmaxState& state, float* subtrahend) {
  for (int64_t i = 0; i < kBlocking.rows; i += kLanes) {
    const F before = load(state.maximum + i), high = larger(load(top + i), before);
    const F now = select((high - before) * broadcast(scale) > broadcast(kMaximumSlack), high, before);
    store(state.maximum + i, now);
    const F taken = select(now == broadcast(-kInfinity), zero(), now);  // no key yet: -inf - -inf would be NaN
    store(subtrahend + i, taken);
    const F factor = exp2<6>((before - taken) * broadcast(scale));
    store(state.factor + i, factor);
    store(state.sum + i, load(state.sum + i) * factor);
  }
}

// Do masks and the like leave the scores of this block alone?
inline bool keeps_scores(const Job& job, const Rows& rows, const KeyBlock& block) {
  const Problem& p = job.p;
  return !job.scale.adjusts && !given(p.key_padding) && !given(p.dense_mask) && rows.all.first <= block.first &&
         block.first + block.keys() <= rows.all.last;
}

// What flash_fwd-inl.h asks for.
template <class T>
struct TiledProduct : Bf16Product {
  using Tiles = T;
  using Weights = WeightsInSlices<Bf16Product>;

  static void pack_keys(const char* const (&rows)[kBlocking.key_step], int64_t bytes, int64_t units, float* to) {
    pack_key_squares(rows, bytes, units, to);
  }
  static void pack_values(const char* const (&rows)[2 * kSquare], int64_t bytes, int64_t tiles, int64_t stride,
                          float* to) {
    pack_value_squares(rows, bytes, tiles, stride, to);
  }

  template <Start kStart>
  static void multiply(const float* tiles, int64_t tile_stride, int64_t num_tiles, const float* lanes, int64_t units,
                       int64_t vectors, const float* factor, float* result) {
    Nothing nothing;
    if constexpr (kStart == Start::kFactor) rescale(factor, num_tiles * kSquare, vectors, result);
    multiply_in_tiles<T, kStart>(tiles, tile_stride, num_tiles, lanes, units, vectors, result, nothing);
  }

  static bool attend_keys(const Job& job, const Rows& rows, const Rows* next, const PackedPair& packed,
                          const Buffers& at) {
    if (rows.vectors != kGroup) return attnmux::attend_keys<TiledProduct>(job, rows, next, packed, at);
    FetchOutput{job.p, rows}(1, 1);
    FetchQueries{job.p, next}(1, 1);
    return attend_keys_overlapped(job, rows, packed, at);
  }

  static bool attend_keys_overlapped(const Job& job, const Rows& rows, const PackedPair& packed, const Buffers& at) {
    const Problem& p = job.p;
    const Layout& layout = job.layout;
    alignas(64) float top[kBlocking.rows], subtrahend[kBlocking.rows];
    Weights weights(job.scale.base2, at.state, subtrahend);
    const auto scores_of = [&](int64_t i) { return at.scores + i % kBlocking.score_blocks * kScores; };

    const auto multiply_keys = [&](const KeyBlock& block, int64_t i) {
      DuringScores<Weights> meanwhile(weights, top);
      multiply_in_tiles<T, Start::kZero>(packed.keys + block.first * layout.units, layout.units * kSquare,
                                         block.keys() / kSquare, at.queries, layout.units, kGroup, scores_of(i),
                                         meanwhile);
      meanwhile.take_maxima();
    };
    const auto multiply_values = [&](const KeyBlock& block, int64_t i) {
      DuringValues<Weights> meanwhile{weights};
      const float* values = packed.values + block.first / 2 * kSquare;
      if (i == 0) {
        multiply_in_tiles<T, Start::kZero>(values, packed.value_stride, layout.value_tiles, scores_of(i),
                                           block.keys() / 2, kGroup, at.accumulator, meanwhile);
      } else {
        multiply_in_tiles<T, Start::kAdd>(values, packed.value_stride, layout.value_tiles, scores_of(i),
                                          block.keys() / 2, kGroup, at.accumulator, meanwhile);
      }
    };
    // Scores become final, and their maxima known.
    const auto settle = [&](const KeyBlock& block, int64_t i) {
      if (!keeps_scores(job, rows, block)) {
        adjust_scores(job, rows, block, at.extra, scores_of(i));
        take_maxima(scores_of(i), block.keys(), top);
      }
      raise_maximum(top, job.scale.base2, at.state, subtrahend);
    };

    KeyBlock previous{}, current{}, next{};
    if (!find_keys(p, rows, first_key(rows), current)) return false;
    multiply_keys(current, 0);
    settle(current, 0);
    for (int64_t i = 0;; ++i) {
      const bool more = find_keys(p, rows, current.last, next);
      const bool drops = p.dropout_p > 0;
      if (drops) draw_dropout(p, rows, current, at.extra);
      const int64_t steps = (more ? count_steps(next.keys() / kSquare, layout.units, kGroup) : 0) +
                            (i > 0 ? count_steps(layout.value_tiles, previous.keys() / 2, kGroup) : 0);
      weights.begin(scores_of(i), drops ? at.extra : nullptr, current.keys(), steps);
      if (more) multiply_keys(next, i + 1);
      if (i > 0) multiply_values(previous, i - 1);
      weights.finish();
      // The output so far is older than the maxima of this block.
      if (i > 0) rescale(at.state.factor, layout.value_tiles * kSquare, kGroup, at.accumulator);
      previous = current;
      if (!more) {
        multiply_values(previous, i);
        return true;
      }
      settle(next, i + 1);
      current = next;
    }
  }

 private:
  static constexpr int64_t kScores = kBlocking.key_block * kBlocking.rows;  // numbers in a block
};

}  // namespace
}  // namespace attnmux
