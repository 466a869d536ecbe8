// SPDX-License-Identifier: Apache-2.0
// When the kernel for few queries (decode-inl.h) is used, and its memory, as plain numbers. Internal linkage for the
// reason that kernels/kernel.h gives.
#pragma once

#include "kernels/cpu/flash/layout.h"

namespace attnmux {
namespace {

// Up to this many queries, packing K and V would cost more than it gains.
constexpr int64_t kDecodeQueries = 8;
// Rows that share a kv head, at most: beyond them the products, not memory, decide, and packed operands are faster.
constexpr int64_t kDecodeRows = 64;
// Keys of a work item. The ranges depend on the problem alone, so that results do not depend on the number of threads.
constexpr int64_t kDecodeRange = 512, kDecodeMaxRanges = 64;
// Keys between two rounds of the softmax, at most: while the rows of one operand are used, as many of the other are on
// their way into the first-level cache. 8 KiB of each read memory fastest: 16 rows of fp32 are up to 15 % faster than
// 32, 32 of bf16 up to 8 % faster than 16 and 16 % faster than 64.
constexpr int64_t kDecodeBlock = 32;
[[maybe_unused]] inline int64_t decode_block_keys(const Problem& p) {
  return p.dtype == ATTNMUX_FP32 && p.head_dim >= 128 ? kDecodeBlock / 2 : kDecodeBlock;
}

[[maybe_unused]] inline int64_t heads_per_kv_head(const Problem& p) {
  return p.num_heads_kv == 0 ? 1 : max_of(1, p.num_heads_q / p.num_heads_kv);
}
[[maybe_unused]] inline bool is_decode(const Problem& p) {
  return p.seqlen_q <= kDecodeQueries && heads_per_kv_head(p) * p.seqlen_q <= kDecodeRows;
}

// Rows are computed four, two or one at a time; three take the place of four.
constexpr int64_t decode_rows_padded(int64_t rows) { return rows % 4 == 3 ? rows + 1 : rows; }

// Sizes in bytes, offsets from the start of the workspace, unless they say otherwise.
struct DecodeLayout {
  int64_t range;            // keys of a range
  int64_t ranges;           // of the longest sequence
  int64_t rows;             // that share a kv head, at most, padded
  int64_t query_units;      // of a row of Q, padded to whole vectors
  int64_t row_floats;       // of a row's partial result: O, then maximum and sum
  int64_t queries;          // floats of Q of one kv head
  int64_t tile_scores;      // floats of the scores of up to four rows
  int64_t scratch;          // one task's: Q of all kv heads, then scores of one
  int64_t partials_offset;  // [batch][kv head][range][row]
  int64_t total;
};

[[maybe_unused]] inline DecodeLayout make_decode_layout(const Problem& p, const Blocking& blocking, int64_t seqlen_q,
                                                        int64_t num_threads) {
  DecodeLayout l{};
  const bool bf16 = p.dtype == ATTNMUX_BF16, pairs = bf16 && blocking.decodes_pairs;
  l.range = max_of(kDecodeRange, round_up(ceil_div(p.seqlen_kv, kDecodeMaxRanges), kDecodeBlock));
  l.ranges = max_of(1, ceil_div(p.seqlen_kv, l.range));
  l.rows = decode_rows_padded(heads_per_kv_head(p) * seqlen_q);
  l.query_units = round_up(p.head_dim, blocking.lanes * (bf16 ? 2 : 1)) / (pairs ? 2 : 1);
  l.row_floats = round_up(p.head_dim_v, blocking.lanes * (bf16 ? 2 : 1)) + blocking.lanes;
  l.queries = l.rows * l.query_units;
  l.tile_scores = (kDecodeBlock + 2 * blocking.lanes) * 4;
  l.scratch = (p.num_heads_kv * l.queries + ceil_div(l.rows, 4) * l.tile_scores) * 4;
  l.scratch = round_up(l.scratch, kCacheLine);
  l.partials_offset = num_threads * l.scratch;
  // Not l.ranges: with longer ranges there may be fewer of them, and more keys must never need less.
  const int64_t most_ranges = max_of(1, min_of(ceil_div(p.seqlen_kv, kDecodeRange), kDecodeMaxRanges));
  l.total = l.partials_offset + p.batch * p.num_heads_kv * most_ranges * l.rows * l.row_floats * 4;
  return l;
}

// What a plan for this problem needs, so that it also serves smaller ones, which may be decoding.
[[maybe_unused]] inline int64_t workspace_of(const Problem& p, const Blocking& blocking, int64_t num_threads) {
  if (is_decode(p)) return make_decode_layout(p, blocking, p.seqlen_q, num_threads).total;
  const int64_t group = heads_per_kv_head(p);
  const int64_t packed = make_layout(p, blocking, num_threads).total;
  if (group > kDecodeRows) return packed;
  const int64_t fewer_queries = min_of(kDecodeQueries, kDecodeRows / group);
  return max_of(packed, make_decode_layout(p, blocking, fewer_queries, num_threads).total);
}

}  // namespace
}  // namespace attnmux
