// SPDX-License-Identifier: Apache-2.0
// A call with few queries as decode-inl.h sees it: the rows of a kv head, a block of keys, a partial result.
#pragma once

#include "kernels/cpu/flash/decode_layout.h"
#include "kernels/cpu/flash/rows-inl.h"
#include "kernels/cpu/flash/scale-inl.h"

namespace attnmux {
namespace {

// The rows of one kv head in one sequence.
struct DecodeRows {
  Sequence sequence;
  int64_t batch, kv_head, count;
  KeyRange any, all;  // keys that some row keeps; keys that every row keeps
  int64_t head[kDecodeRows], query[kDecodeRows];
  KeyRange keys[kDecodeRows];
};

inline void find_decode_rows(const Problem& p, int64_t b, int64_t kv_head, DecodeRows& rows) {
  const Sequence s = sequence(p, b);
  const int64_t group = heads_per_kv_head(p);
  rows.sequence = s;
  rows.batch = b;
  rows.kv_head = kv_head;
  rows.count = group * s.seqlen_q;
  rows.any = {s.key_length, 0};
  rows.all = {0, s.key_length};
  for (int64_t query = 0; query < s.seqlen_q; ++query) {
    const KeyRange range = key_range(p, s, query);
    for (int64_t i = 0; i < group; ++i) {
      const int64_t row = i * s.seqlen_q + query;
      rows.head[row] = kv_head * group + i;
      rows.query[row] = query;
      rows.keys[row] = range;
    }
    rows.all = {max_of(rows.all.first, range.first), min_of(rows.all.last, range.last)};
    if (range.first < range.last) rows.any = {min_of(rows.any.first, range.first), max_of(rows.any.last, range.last)};
  }
}

// One call under way. Lives in the frame of run_decode; tasks take items from `next`.
struct DecodeJob {
  const Problem* p;
  const RunContext* context;
  DecodeLayout layout;
  Scale scale;
  float* partials;
  int64_t heads_together;  // kv heads of a work item
  int64_t interleaved;     // vectors whose columns alternate in the output, 1 or 2
  bool fetches;            // K and V are so many that fetching them ahead saves more than it costs
  int64_t next, items;
};

// The same rows of another kv head.
inline void move_to_head(const Problem& p, int64_t kv_head, DecodeRows& rows) {
  const int64_t group = heads_per_kv_head(p);
  for (int64_t row = 0; row < rows.count; ++row) rows.head[row] += (kv_head - rows.kv_head) * group;
  rows.kv_head = kv_head;
}

// What a task works in, and where an item's result goes.
struct DecodeScratch {
  float* queries;  // [row][query_units], of one kv head
  float* scores;   // vectors of kKeys keys times kRows rows; then weights, as units
};

// A row's partial result: O without the division by the sum, in the column order of load_value_vectors.
struct Partial {
  float *accumulator, *maximum, *sum;
};

inline Partial partial_at(const DecodeLayout& layout, float* first_row, int64_t row, int64_t value_floats) {
  float* at = first_row + row * layout.row_floats;
  return {at, at + value_floats, at + value_floats + 1};
}

// The keys of a block that a mask leaves to somebody, and their rows.
struct DecodeBlock {
  int64_t count;
  bool edge;  // some row does not keep every key
  int64_t key[kDecodeBlock];
  const char *k[kDecodeBlock], *v[kDecodeBlock];
};

// Fetches rows of a block, or what lies `offset` bytes behind them, line by line in the order of memory. Taking turns
// on several rows would hide them from the processor's own prefetcher, and cost up to a quarter of the speed.
struct FetchRows {
  const char *const *row, *const *end;
  int64_t offset, bytes;
  bool near;  // into the first-level cache
  int64_t at = 0;

  // Inlined always: around a call, the sums in vector registers would be spilled.
  __attribute__((always_inline)) void lines(int64_t count) {
    for (; count > 0 && row < end; --count) {
      if (near) {
        __builtin_prefetch(*row + offset + at, 0, 3);
      } else {
        __builtin_prefetch(*row + offset + at, 0, 2);
      }
      at += kCacheLine;
      if (at >= bytes) {
        at = 0;
        ++row;
      }
    }
  }
  __attribute__((always_inline)) void rows_until(const char* const* last) {
    while (row < last && row < end) lines(1);
  }
};

// What is fetched beside the products of a block.
struct DecodeFetch {
  int64_t keys;  // bytes from a row of K to the one that is fetched; 0 if none is
  bool values;   // the block's own rows of V
  bool near;     // see FetchRows
};

// Returns the first key behind the block, which has `most` keys or fewer.
inline int64_t find_block(const Problem& p, const DecodeRows& rows, int64_t first, int64_t last, int64_t most,
                          DecodeBlock& block) {
  const Sequence& s = rows.sequence;
  const Tensor& padding = p.key_padding;
  const int64_t k_step = p.k.strides[1], v_step = p.v.strides[1];
  const char* k = address(p.k, s.k_offset + rows.kv_head * p.k.strides[2]);
  const char* v = address(p.v, s.v_offset + rows.kv_head * p.v.strides[2]);
  const int64_t size = element_bytes(p.dtype);
  block.count = 0;
  int64_t key = first;
  for (; key < last && block.count < most; ++key) {
    if (given(padding) && !attends(padding, rows.batch * padding.strides[0] + key * padding.strides[1])) continue;
    block.key[block.count] = key;
    block.k[block.count] = k + key * k_step * size;
    block.v[block.count] = v + key * v_step * size;
    ++block.count;
  }
  block.edge = first < rows.all.first || key > rows.all.last;
  return key;
}

inline void move_block(int64_t k_bytes, int64_t v_bytes, DecodeBlock& block) {
  for (int64_t i = 0; i < block.count; ++i) {
    block.k[i] += k_bytes;
    block.v[i] += v_bytes;
  }
}

}  // namespace
}  // namespace attnmux
