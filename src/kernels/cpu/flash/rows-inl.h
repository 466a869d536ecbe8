// SPDX-License-Identifier: Apache-2.0
// The query rows of one block: which they are, where they lie, which keys they keep.
#pragma once

#include "kernels/cpu/flash/layout.h"
#include "kernels/cpu/flash/vector-inl.h"

namespace attnmux {
namespace {

inline int64_t element_bytes(int32_t dtype) {
  return dtype == ATTNMUX_FP32 ? 4 : dtype == ATTNMUX_FP16 || dtype == ATTNMUX_BF16 ? 2 : 1;
}

inline char* address(const Tensor& t, int64_t offset) {
  return static_cast<char*>(t.data) + offset * element_bytes(t.dtype);
}

// Keys that causal, window and length leave to at least one query of the sequence. Ranges of neighbouring queries
// overlap or touch, so there are no holes.
inline KeyRange keys_of_sequence(const Problem& p, const Sequence& s) {
  if (s.seqlen_q == 0) return {0, 0};
  const KeyRange range{key_range(p, s, 0).first, key_range(p, s, s.seqlen_q - 1).last};
  return range.first < range.last ? range : KeyRange{0, 0};
}

// When there are fewer queries than rows in a block, the heads that share a kv head are stacked.
inline bool stacks_heads(const Problem& p) { return p.seqlen_q < kBlocking.rows; }

// Blocks of all query rows that share one kv head.
inline int64_t blocks_per_kv_head(const Problem& p, int64_t seqlen_q) {
  const int64_t group = p.num_heads_q / p.num_heads_kv;
  return stacks_heads(p) ? ceil_div(group * seqlen_q, kBlocking.rows) : group * ceil_div(seqlen_q, kBlocking.rows);
}

struct Rows {
  Sequence sequence;
  int64_t batch, kv_head, count, vectors;
  KeyRange any, all;  // keys that some row keeps; keys that every row keeps
  int64_t head[kBlocking.rows], query[kBlocking.rows];
  int64_t first[kBlocking.rows], last[kBlocking.rows];
  const char *q[kBlocking.rows], *dense[kBlocking.rows], *bias[kBlocking.rows];  // of key 0
};

inline const char* score_row(const Tensor& t, int64_t b, int64_t head, int64_t query) {
  return given(t) ? address(t, b * t.strides[0] + head * t.strides[1] + query * t.strides[2]) : nullptr;
}

// Where row i of a block comes from.
struct RowSource {
  int64_t head, query;
};

// Fills in a row: what it reads and which keys it keeps.
inline void add_row(const Problem& p, const Sequence& s, int64_t i, RowSource from, Rows& rows) {
  const KeyRange range = key_range(p, s, from.query);
  rows.head[i] = from.head;
  rows.query[i] = from.query;
  rows.first[i] = range.first;
  rows.last[i] = range.last;
  rows.q[i] = address(p.q, s.q_offset + from.query * p.q.strides[1] + from.head * p.q.strides[2]);
  rows.all = {max_of(rows.all.first, range.first), min_of(rows.all.last, range.last)};
  if (range.first < range.last) rows.any = {min_of(rows.any.first, range.first), max_of(rows.any.last, range.last)};
}

// Block `block` of the rows that share a kv head. The lanes after the last row repeat it; nobody reads their results.
inline void find_rows(const Problem& p, const Sequence& s, int64_t b, int64_t kv_head, int64_t block, Rows& rows) {
  const int64_t group = p.num_heads_q / p.num_heads_kv, blocks = ceil_div(s.seqlen_q, kBlocking.rows);
  const bool stacks = stacks_heads(p);
  const int64_t first_head = kv_head * group + (stacks ? 0 : block / blocks);
  // Later blocks first: under a causal mask they are the long ones, and long work must not come last.
  const int64_t first_row = (stacks ? block : blocks - 1 - block % blocks) * kBlocking.rows;
  rows.sequence = s;
  rows.batch = b;
  rows.kv_head = kv_head;
  rows.count = min_of(kBlocking.rows, (stacks ? group * s.seqlen_q : s.seqlen_q) - first_row);
  // Whole tiles are as many as there is room for.
  rows.vectors = kBlocking.tile == kSquare ? kBlocking.rows / kLanes : ceil_div(rows.count, kLanes);
  rows.any = {s.key_length, 0};
  rows.all = {0, s.key_length};
  const int64_t lanes = rows.vectors * kLanes;
  for (int64_t i = 0; i < lanes; ++i) {
    const int64_t row = first_row + min_of(i, rows.count - 1);
    add_row(p, s, i, stacks ? RowSource{first_head + row / s.seqlen_q, row % s.seqlen_q} : RowSource{first_head, row},
            rows);
  }
  if (given(p.dense_mask)) {
    for (int64_t i = 0; i < lanes; ++i) rows.dense[i] = score_row(p.dense_mask, b, rows.head[i], rows.query[i]);
  }
  if (given(p.bias)) {
    for (int64_t i = 0; i < lanes; ++i) rows.bias[i] = score_row(p.bias, b, rows.head[i], rows.query[i]);
  }
}

}  // namespace
}  // namespace attnmux
