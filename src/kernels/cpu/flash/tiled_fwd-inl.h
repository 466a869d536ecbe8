// SPDX-License-Identifier: Apache-2.0
// The loop over keys for tiles. The tile unit and the vector units are different parts of the core, and the softmax of
// a block takes about as long as its products: so while the vectors make weights of one square of scores, the tiles
// compute the next square and the output of the block before. Each of these products is followed by half of the
// weights, little enough for the core to run both at the same time. Mixing their instructions one by one is no better:
// loads of tiles take the ports of vector instructions.
//
// A task computes several blocks of rows side by side, which take turns on a block of keys: so it is read from far away
// once for all of them. Scores never leave the first-level cache: a square of them becomes weights at once.
#pragma once

#include "kernels/cpu/flash/flash_fwd-inl.h"
#include "kernels/cpu/flash/tile_weights-inl.h"
#include "kernels/cpu/flash/tiles-inl.h"

namespace attnmux {
namespace {

// One of the blocks of rows under way.
struct RowBlock {
  Rows rows;
  PackedPair packed;
  RowBuffers at;
  Subtrahend subtrahend;
  KeyBlock next;  // of keys, if there is `more`
  bool more, any, started;
};

// A block of keys of a block of rows: what the two products are cut into.
struct KeyTurn {
  RowBlock* block = nullptr;
  KeyBlock keys{};
  float* weights = nullptr;
  int64_t done = 0;  // tiles of the output, once all weights are there
};

// Do masks and the like leave these scores alone?
inline bool keeps_scores(const Job& job, const Rows& rows, const KeyBlock& keys) {
  const Problem& p = job.p;
  return !job.scale.adjusts && !given(p.key_padding) && !given(p.dense_mask) && rows.all.first <= keys.first &&
         keys.first + keys.keys() <= rows.all.last;
}

template <class Tiles>
class TiledLoop {
 public:
  TiledLoop(const Job& job, RowBlock* blocks, int64_t count, char* scratch)
      : job_(job), blocks_(blocks), count_(count), weights_(job.scale.base2) {
    squares_ = reinterpret_cast<float*>(scratch + job.layout.scores);
    weight_blocks_ = squares_ + 2 * kSquareKeys * kBlocking.rows;
    extra_ = reinterpret_cast<float*>(scratch + job.layout.extra);
  }

  // Attends to all keys of all blocks.
  void run() {
    if (!take_turn(current_)) return;
    int64_t key = current_.keys.first;
    multiply_keys(current_, key);
    settle(key);
    for (;;) {
      const KeyBlock square = square_at(current_, key);
      const bool drops = job_.p.dropout_p > 0;
      if (drops) draw_dropout(job_.p, current_.block->rows, square, extra_);
      const float* scores = square_scores();
      const bool same = key + kSquareKeys < current_.keys.last;
      KeyTurn next;
      if (same) {
        key += kSquareKeys;
      } else if (take_turn(next)) {
        key = next.keys.first;
      }
      const bool more = same || next.block != nullptr;
      weights_.begin(scores, drops ? extra_ : nullptr, current_.block->subtrahend, current_.block->at.state.sum,
                     current_.weights + (square.first - current_.keys.first) / 2 * kBlocking.rows);
      ++square_;
      if (more) multiply_keys(same ? current_ : next, key);
      weights_.half();
      multiply_values(tiles_due(square));
      weights_.half();
      if (!same) {
        previous_ = current_;
        current_ = next;
        if (!more) break;
      }
      settle(key);
    }
    multiply_values(tiles_left());
  }

 private:
  // The next block of keys, of the next block of rows that has one.
  bool take_turn(KeyTurn& turn) {
    for (int64_t i = 0; i < count_; ++i) {
      RowBlock& block = blocks_[turn_];
      turn_ = turn_ + 1 == count_ ? 0 : turn_ + 1;
      if (!block.more) continue;
      ++turns_;
      turn = {&block, block.next, weight_blocks_ + turns_ % 2 * (kBlocking.key_block / 2 * kBlocking.rows), 0};
      block.more = find_keys(job_.p, block.rows, turn.keys.last, block.next);
      return true;
    }
    return false;
  }

  static KeyBlock square_at(const KeyTurn& turn, int64_t key) {
    return {key, min_of(key + kSquareKeys, turn.keys.last)};
  }
  float* square_scores() const { return squares_ + square_ % 2 * (kSquareKeys * kBlocking.rows); }

  void multiply_keys(const KeyTurn& turn, int64_t key) {
    const int64_t units = job_.layout.units;
    multiply_block<Tiles, Start::kZero, 2>(turn.block->packed.keys + key * units, units * kSquare,
                                           turn.block->at.queries, units, square_scores());
  }

  // Scores become final, and what came before is made relative to their maxima.
  void settle(int64_t key) {
    RowBlock& block = *current_.block;
    const KeyBlock square = square_at(current_, key);
    if (!keeps_scores(job_, block.rows, square)) adjust_scores(job_, block.rows, square, extra_, square_scores());
    const SoftmaxState& state = block.at.state;
    if (!raise_maximum(square_scores(), job_.scale.base2, state)) return;
    block.subtrahend.set(state.maximum, job_.scale.base2);
    rescale_weights(state.factor, (key - current_.keys.first) / 2, current_.weights);
    if (previous_.block == &block) multiply_values(tiles_left());
    if (block.started) rescale(state.factor, job_.layout.value_tiles * kSquare, block.at.accumulator);
  }

  int64_t tiles_left() const { return previous_.block == nullptr ? 0 : job_.layout.value_tiles - previous_.done; }
  // The output of the turn before is spread over the squares of this one: so much is due with this one.
  int64_t tiles_due(const KeyBlock& square) const {
    const int64_t squares = ceil_div(current_.keys.last - current_.keys.first, kSquareKeys);
    const int64_t until = (square.first - current_.keys.first) / kSquareKeys + 1;
    if (until == squares) return tiles_left();
    return min_of(tiles_left(), max_of(0, job_.layout.value_tiles * until / squares / 2 * 2 - previous_.done));
  }

  // The next `tiles` rows of tiles of the output of the turn before.
  void multiply_values(int64_t tiles) {
    if (tiles_left() == 0) return;
    RowBlock& block = *previous_.block;
    if (block.started) {
      multiply_values<Start::kAdd>(block, tiles);
    } else {
      multiply_values<Start::kZero>(block, tiles);
    }
    block.started = block.started || tiles_left() == 0;
  }
  template <Start kStart>
  void multiply_values(const RowBlock& block, int64_t tiles) {
    const int64_t stride = block.packed.value_stride, units = previous_.keys.keys() / 2;
    for (const int64_t end = min_of(previous_.done + tiles, job_.layout.value_tiles); previous_.done < end;) {
      const float* values = block.packed.values + previous_.keys.first / 2 * kSquare + previous_.done * stride;
      float* result = block.at.accumulator + previous_.done * (kSquare * kBlocking.rows);
      if (end - previous_.done >= 2) {
        multiply_block<Tiles, kStart, 2>(values, stride, previous_.weights, units, result);
      } else {
        multiply_block<Tiles, kStart, 1>(values, stride, previous_.weights, units, result);
      }
      previous_.done += min_of(end - previous_.done, 2);
    }
  }

  const Job& job_;
  RowBlock* blocks_;
  int64_t count_, turn_ = 0, turns_ = 0, square_ = 0;
  float *squares_, *weight_blocks_, *extra_;
  WeightsInHalves<Bf16Product> weights_;
  KeyTurn previous_, current_;
};

// What flash_fwd-inl.h asks for.
template <class T>
struct TiledProduct : Bf16Product {
  using Tiles = T;

  static void pack_keys(const char* const (&rows)[kBlocking.key_step], int64_t bytes, int64_t units, float* to) {
    pack_key_squares(rows, bytes, units, to);
  }
  static void pack_values(const char* const (&rows)[2 * kSquare], int64_t bytes, int64_t tiles, int64_t stride,
                          float* to) {
    pack_value_squares(rows, bytes, tiles, stride, to);
  }

  static void attend_items(Job& job, char* scratch) {
    RowBlock blocks[kBlocking.row_blocks];
    T::configure();
    for (int64_t item; (item = take_item(job.next, job.together)) < job.end;) {
      const int64_t count = min_of(job.together, job.end - item);
      for (int64_t i = 0; i < count; ++i) find_item(job, item + i, blocks[i].rows);
      for (int64_t i = 0; i < count; ++i)
        begin_block(job, blocks[i], i + 1 < count ? &blocks[i + 1].rows : nullptr, scratch + i * job.layout.row_block);
      TiledLoop<T>(job, blocks, count, scratch).run();
      for (int64_t i = 0; i < count; ++i) {
        if (i == 0) FetchOutput{job.p, blocks[0].rows}(1, 1);
        if (i + 1 < count) FetchOutput{job.p, blocks[i + 1].rows}(1, 1);
        finish_rows(job, blocks[i].rows, blocks[i].any, blocks[i].at);
      }
    }
    T::release();
  }

 private:
  static void begin_block(const Job& job, RowBlock& block, const Rows* next, char* memory) {
    const Rows& rows = block.rows;
    FetchQueries{job.p, next}(1, 1);
    block.packed = packed_pair(job, rows.batch, rows.kv_head, rows.sequence);
    block.at = find_row_buffers(job.layout, memory);
    begin_rows<Source::kPairs>(job, rows, block.at);
    block.subtrahend.set(block.at.state.maximum, job.scale.base2);
    block.any = block.more = find_keys(job.p, rows, first_key(rows), block.next);
    block.started = false;
  }
};

}  // namespace
}  // namespace attnmux
