// SPDX-License-Identifier: Apache-2.0
// FlashAttention (Dao et al., 2022; Dao, "FlashAttention-2", 2023, Algorithm 1) on the CPU, once for all instruction
// sets.
//
// A file per instruction set supplies vectors (vector-inl.h) and kBlocking, then includes this one. K and V are packed
// once per kv head, shared by all query blocks; a work item is one block of query rows with its whole loop over keys,
// so that results do not depend on the number of threads.
#pragma once

#include "kernels/cpu/flash/decode-inl.h"
#include "kernels/cpu/flash/dropout-inl.h"
#include "kernels/cpu/flash/fetch-inl.h"
#include "kernels/cpu/flash/masks-inl.h"
#include "kernels/cpu/flash/multiply-inl.h"
#include "kernels/cpu/flash/output-inl.h"
#include "kernels/cpu/flash/pack-inl.h"
#include "kernels/cpu/flash/rows-inl.h"
#include "kernels/cpu/flash/scale-inl.h"
#include "kernels/cpu/flash/softmax-inl.h"
#include "kernels/cpu/isa/flush_denormals.h"

namespace attnmux {
namespace {

// Products that multiply whole tiles (tiles-inl.h) pack and multiply in their own way.
template <class Product>
constexpr bool kHasTiles = requires { typename Product::Tiles; };

// One call under way. Lives in the frame of run_flash; tasks take items from `next`.
struct Job {
  const Problem& p;
  const RunContext& context;
  Layout layout;
  Scale scale;
  SequenceStart* starts;  // batch + 1 of them
  char* packed;
  // The round: kv heads [first_pair, last_pair) in the order (sequence, kv head), packed from byte `base` on.
  int64_t first_pair, last_pair, base, pieces;
  int64_t next, end;
  int64_t together;  // items that a task takes at a time, where it computes several side by side
};

struct PackedPair {
  float *keys, *values;
  int64_t value_stride;  // floats between tiles
};

inline PackedPair packed_pair(const Job& job, int64_t b, int64_t kv_head, const Sequence& s) {
  char* at = job.packed + (job.starts[b].packed - job.base) + kv_head * packed_bytes(job.layout, s.seqlen_kv);
  return {reinterpret_cast<float*>(at), reinterpret_cast<float*>(at + packed_keys_bytes(job.layout, s.seqlen_kv)),
          packed_values_stride(job.layout, s.seqlen_kv)};
}

// ---- Packing --------------------------------------------------------------------------------------------------------

// Rows of one head lie apart, which hides them from the processor's own prefetcher: fetched this many keys ahead,
// packing takes two thirds of the time.
constexpr int64_t kFetchAhead = 32;

inline void prefetch_rows(const Tensor& t, int64_t offset, int64_t first, int64_t last, int64_t bytes) {
  for (int64_t key = first; key < last; ++key) {
    const char* row = address(t, offset + key * t.strides[1]);
    for (int64_t at = 0; at < bytes; at += kCacheLine) __builtin_prefetch(row + at, 0, 2);
  }
}

template <class Product, Source kSource>
void pack_piece(const Job& job, int64_t b, int64_t kv_head, int64_t piece) {
  constexpr int64_t kStep = kBlocking.key_step, kValueStep = kBlocking.tile * Product::kElements;
  const Problem& p = job.p;
  const Sequence s = sequence(p, b);
  const KeyRange kept = keys_of_sequence(p, s);
  const int64_t begin = max_of(piece * kPackKeys, kept.first / kStep * kStep),
                end = min_of((piece + 1) * kPackKeys, kept.last);
  if (begin >= end) return;
  const PackedPair pair = packed_pair(job, b, kv_head, s);
  const int64_t size = element_bytes(p.dtype), units = job.layout.units;
  const Tensor& padding = p.key_padding;

  for (int64_t key = begin; key < end; key += kStep) {
    const char* rows[kStep];
    for (int64_t i = 0; i < kStep; ++i) {
      // Keys of a tile that nobody keeps become zeros; their scores are masked.
      const bool used = key + i >= kept.first && key + i < kept.last;
      rows[i] = used ? address(p.k, s.k_offset + (key + i) * p.k.strides[1] + kv_head * p.k.strides[2]) : nullptr;
    }
    prefetch_rows(p.k, s.k_offset + kv_head * p.k.strides[2], key + kFetchAhead, min_of(key + kFetchAhead + kStep, end),
                  p.head_dim * size);
    if constexpr (kHasTiles<Product>) {
      Product::pack_keys(rows, p.head_dim * size, units, pair.keys + key * units);
    } else {
      pack_key_tile<kSource>(rows, p.head_dim * size, units, pair.keys + key * units);
    }
  }
  for (int64_t key = begin; key < end; key += kValueStep) {
    const char* rows[kValueStep];
    for (int64_t i = 0; i < kValueStep; ++i) {
      // A value that no query of the sequence attends may be NaN, and 0·NaN is NaN.
      const bool used = key + i >= kept.first && key + i < kept.last &&
                        (!given(padding) || attends(padding, b * padding.strides[0] + (key + i) * padding.strides[1]));
      rows[i] = used ? address(p.v, s.v_offset + (key + i) * p.v.strides[1] + kv_head * p.v.strides[2]) : nullptr;
    }
    prefetch_rows(p.v, s.v_offset + kv_head * p.v.strides[2], key + kFetchAhead,
                  min_of(key + kFetchAhead + kValueStep, end), p.head_dim_v * size);
    float* to = pair.values + key / Product::kElements * kBlocking.tile;
    if constexpr (kHasTiles<Product>) {
      Product::pack_values(rows, p.head_dim_v * size, job.layout.value_tiles, pair.value_stride, to);
    } else {
      // The last units of an odd number of tiles would lie outside.
      const int64_t room = round_up(s.seqlen_kv, kStep) - key;
      pack_value_rows<Product, kSource>(rows, p.head_dim_v * size, job.layout.value_tiles, pair.value_stride,
                                        min_of(kTile, room / Product::kElements), to);
    }
  }
}

template <class Product, Source kSource>
void pack_task(void* arg, int64_t /*task*/) {
  Job& job = *static_cast<Job*>(arg);
  const DenormalMode mode = flush_denormals();
  for (int64_t item; (item = take_item(job.next)) < job.end;) {
    const int64_t pair = job.first_pair + item / job.pieces;
    pack_piece<Product, kSource>(job, pair / job.p.num_heads_kv, pair % job.p.num_heads_kv, item % job.pieces);
  }
  restore_denormals(mode);
}

// ---- Computing ------------------------------------------------------------------------------------------------------

// What a task keeps of a block of query rows.
struct RowBuffers {
  float *queries, *accumulator;
  SoftmaxState state;
};

inline RowBuffers find_row_buffers(const Layout& layout, char* row_block) {
  auto* state = reinterpret_cast<float*>(row_block + layout.state);
  return {reinterpret_cast<float*>(row_block),
          reinterpret_cast<float*>(row_block + layout.accumulator),
          {state, state + kBlocking.rows, state + 2 * kBlocking.rows}};
}

// A task's scratch for one block of rows.
struct Buffers : RowBuffers {
  float *scores, *extra;
};

inline Buffers find_buffers(const Layout& layout, char* scratch) {
  return {find_row_buffers(layout, scratch), reinterpret_cast<float*>(scratch + layout.scores),
          reinterpret_cast<float*>(scratch + layout.extra)};
}

// The next block of keys from `key` on that no mask empties.
inline bool find_keys(const Problem& p, const Rows& rows, int64_t key, KeyBlock& block) {
  for (; key < rows.any.last; key += kBlocking.key_block) {
    block = {key, min_of(key + kBlocking.key_block, rows.any.last)};
    if (!is_empty(p, rows, block)) return true;
  }
  return false;
}

inline int64_t first_key(const Rows& rows) { return rows.any.first / kBlocking.key_step * kBlocking.key_step; }

// All that a call may ask for between the product and the softmax.
inline void adjust_scores(const Job& job, const Rows& rows, const KeyBlock& block, float* extra, float* scores) {
  const Problem& p = job.p;
  const bool caps = p.softcap > 0;
  if (caps) cap_scores(job.scale.magnitude, static_cast<float>(p.softcap), block.keys(), rows.vectors, scores);
  if (given(p.bias)) bias_scores(p, rows, block, caps ? 1 : job.scale.magnitude, extra, scores);
  mask_range(rows, block, scores);
  if (given(p.key_padding)) mask_padding(p, rows, block, scores);
  if (given(p.dense_mask)) mask_dense(p, rows, block, extra, scores);
}

// The loop over keys, one step after the other. False if there is no key.
template <class Product>
bool attend_keys(const Job& job, const Rows& rows, const Rows* next, const PackedPair& packed, const Buffers& at) {
  const Problem& p = job.p;
  const Layout& layout = job.layout;
  FetchQueries fetch_queries{p, next};
  bool started = false;
  for (KeyBlock block{0, first_key(rows)}; find_keys(p, rows, block.last, block);) {
    FetchForScores fetch{p, rows, block, fetch_queries};
    if (!given(p.bias) && !given(p.dense_mask)) fetch.row = rows.count;
    multiply<Product, Start::kZero>(packed.keys + block.first * layout.units, layout.units * kBlocking.tile,
                                    block.keys() / kBlocking.tile, at.queries, layout.units, rows.vectors,
                                    at.state.factor, at.scores, fetch);
    adjust_scores(job, rows, block, at.extra, at.scores);
    const bool drops = p.dropout_p > 0;
    if (drops) draw_dropout(p, rows, block, at.extra);
    softmax<Product>(at.scores, drops ? at.extra : nullptr, block.keys(), rows.vectors, job.scale.base2, at.state);
    const float* values = packed.values + block.first / Product::kElements * kBlocking.tile;
    const int64_t key_units = block.keys() / Product::kElements;
    FetchOutput fetch_output{p, rows};
    if (block.last < rows.any.last) fetch_output.row = rows.count;  // only beside the last product
    if (started) {
      multiply<Product, Start::kFactor>(values, packed.value_stride, layout.value_tiles, at.scores, key_units,
                                        rows.vectors, at.state.factor, at.accumulator, fetch_output);
    } else {
      multiply<Product, Start::kZero>(values, packed.value_stride, layout.value_tiles, at.scores, key_units,
                                      rows.vectors, at.state.factor, at.accumulator, fetch_output);
    }
    started = true;
  }
  return started;
}

// Q of a block of rows is packed, and no key has been seen.
template <Source kSource>
inline void begin_rows(const Job& job, const Rows& rows, const RowBuffers& at) {
  const Problem& p = job.p;
  pack_rows<kSource>(rows.q, rows.vectors, p.head_dim * element_bytes(p.dtype), job.layout.units, at.queries);
  apply_sign<kSource>(job.scale.sign, job.layout.units * kBlocking.rows, at.queries);
  for (int64_t i = 0; i < kBlocking.rows; ++i) {
    at.state.maximum[i] = -kInfinity;
    at.state.sum[i] = 0;
  }
}

// All keys have been seen, if there were `any`.
inline void finish_rows(const Job& job, const Rows& rows, bool any, const RowBuffers& at) {
  const Problem& p = job.p;
  if (!any) return write_empty(p, rows.sequence, rows);
  write_output(p, rows.sequence, rows, at.state, at.accumulator);
  if (given(p.lse)) write_lse(p, rows.sequence, rows, at.state, job.scale.natural);
}

// The sequence that an item belongs to: the last one that starts at or before it.
inline int64_t sequence_of_item(const Job& job, int64_t item) {
  int64_t low = 0, high = job.p.batch;  // starts[low].item <= item < starts[high].item
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (job.starts[middle].item <= item ? low : high) = middle;
  }
  return low;
}

inline void find_item(const Job& job, int64_t item, Rows& rows) {
  const int64_t b = sequence_of_item(job, item);
  const Sequence s = sequence(job.p, b);
  const int64_t blocks = blocks_per_kv_head(job.p, s.seqlen_q), within = item - job.starts[b].item;
  find_rows(job.p, s, b, within / blocks, within % blocks, rows);
}

template <class Product, Source kSource>
void attend_items(Job& job, char* scratch) {
  const Buffers at = find_buffers(job.layout, scratch);
  // The next item is taken while one is computed, so that its queries can be fetched meanwhile.
  Rows rows[2];
  int current = 0;
  int64_t item = take_item(job.next);
  if (item < job.end) find_item(job, item, rows[current]);
  while (item < job.end) {
    item = take_item(job.next);
    if (item < job.end) find_item(job, item, rows[1 - current]);
    const Rows& now = rows[current];
    begin_rows<kSource>(job, now, at);
    const PackedPair packed = packed_pair(job, now.batch, now.kv_head, now.sequence);
    finish_rows(job, now, attend_keys<Product>(job, now, item < job.end ? &rows[1 - current] : nullptr, packed, at),
                at);
    current = 1 - current;
  }
}

template <class Product, Source kSource>
void attend_task(void* arg, int64_t task) {
  Job& job = *static_cast<Job*>(arg);
  const DenormalMode mode = flush_denormals();
  char* scratch = static_cast<char*>(job.context.workspace) + job.layout.scratch_offset + task * job.layout.scratch;
  if constexpr (kHasTiles<Product>) {
    Product::attend_items(job, scratch);
  } else {
    attend_items<Product, kSource>(job, scratch);
  }
  restore_denormals(mode);
}

// ---- Rounds ---------------------------------------------------------------------------------------------------------

inline void find_starts(Job& job) {
  SequenceStart at{0, 0};
  for (int64_t b = 0; b < job.p.batch; ++b) {
    const Sequence s = sequence(job.p, b);
    job.starts[b] = at;
    at.packed += job.p.num_heads_kv * packed_bytes(job.layout, s.seqlen_kv);
    at.item += job.p.num_heads_kv * blocks_per_kv_head(job.p, s.seqlen_q);
  }
  job.starts[job.p.batch] = at;
}

inline int64_t packed_start(const Job& job, int64_t pair) {
  const int64_t b = pair / job.p.num_heads_kv, heads = job.p.num_heads_kv;
  if (b == job.p.batch) return job.starts[b].packed;
  return job.starts[b].packed + pair % heads * ((job.starts[b + 1].packed - job.starts[b].packed) / heads);
}

inline int64_t item_start(const Job& job, int64_t pair) {
  const int64_t b = pair / job.p.num_heads_kv, heads = job.p.num_heads_kv;
  if (b == job.p.batch) return job.starts[b].item;
  return job.starts[b].item + pair % heads * ((job.starts[b + 1].item - job.starts[b].item) / heads);
}

// Takes as many kv heads as fit; packed_pair() counts from the start of a sequence, hence from `base`.
inline void next_round(Job& job) {
  job.first_pair = job.last_pair;
  job.base = packed_start(job, job.first_pair);
  const int64_t pairs = job.p.batch * job.p.num_heads_kv;
  int64_t longest = 0;
  do {
    longest = max_of(longest, sequence(job.p, job.last_pair / job.p.num_heads_kv).seqlen_kv);
    ++job.last_pair;
  } while (job.last_pair < pairs && packed_start(job, job.last_pair + 1) - job.base <= job.layout.packed);
  job.pieces = ceil_div(longest, kPackKeys);
}

inline bool run_items(Job& job, int64_t first, int64_t last, void (*task)(void*, int64_t)) {
  if (first >= last) return true;
  job.next = first;
  job.end = last;
  // Few enough that every thread gets several times some.
  job.together = min_of(kBlocking.row_blocks, max_of(1, (last - first) / (4 * job.context.num_threads)));
  return job.context.parallel_for(job.context.pool, min_of(job.context.num_threads, last - first), task, &job) == 0;
}

template <class Product, Source kSource>
attnmux_code run_rounds(Job& job) {
  while (job.last_pair < job.p.batch * job.p.num_heads_kv) {
    next_round(job);
    const bool done =
        run_items(job, 0, (job.last_pair - job.first_pair) * job.pieces, pack_task<Product, kSource>) &&
        run_items(job, item_start(job, job.first_pair), item_start(job, job.last_pair), attend_task<Product, kSource>);
    if (!done) return ATTNMUX_EXECUTOR_FAILED;
  }
  return ATTNMUX_OK;
}

inline bool has_no_output(const Problem& p) { return p.batch == 0 || p.num_heads_q == 0 || p.seqlen_q == 0; }

inline Job make_job(const Problem& p, const RunContext& context) {
  Job job{p, context, make_layout(p, kBlocking, context.num_threads), make_scale(p), nullptr, nullptr, 0, 0, 0, 0, 0,
          0, 1};
  job.starts = static_cast<SequenceStart*>(context.workspace);
  job.packed = static_cast<char*>(context.workspace) + job.layout.packed_offset;
  find_starts(job);
  return job;
}

// Few queries of bf16. Splitting a vector takes more registers than widening half a vector: with 16 of them it is the
// slower way.
template <class WideProduct, class Bf16>
attnmux_code run_decode_bf16(const Problem& p, const RunContext& context) {
  if constexpr (kBlocking.decodes_pairs) {
    return run_decode<Bf16, Source::kPairs>(p, context);
  } else {
    return run_decode < WideProduct, kLanes == 16 ? Source::kSplit : Source::kBf16 > (p, context);
  }
}

// WideProduct multiplies fp32, fp16 and, where there is nothing better, bf16; Bf16Product multiplies pairs of bf16.
template <class WideProduct, class Bf16>
attnmux_code run_flash(const Problem& p, const RunContext& context, attnmux_error* /*error*/) {
  if (has_no_output(p)) return ATTNMUX_OK;
  if (is_decode(p)) {
    if (p.dtype == ATTNMUX_FP16) return run_decode<WideProduct, Source::kFp16>(p, context);
    if (p.dtype == ATTNMUX_FP32) return run_decode<WideProduct, Source::kFp32>(p, context);
    return run_decode_bf16<WideProduct, Bf16>(p, context);
  }
  Job job = make_job(p, context);
  if (p.dtype == ATTNMUX_FP16) return run_rounds<WideProduct, Source::kFp16>(job);
  if (p.dtype == ATTNMUX_FP32) return run_rounds<WideProduct, Source::kFp32>(job);
  return run_rounds < Bf16, Bf16::kElements == 2 ? Source::kPairs : Source::kBf16 > (job);
}

// The same for a kernel that takes nothing but bf16.
template <class Bf16>
attnmux_code run_flash_bf16(const Problem& p, const RunContext& context) {
  if (has_no_output(p)) return ATTNMUX_OK;
  if (is_decode(p)) return run_decode_bf16<Fp32Product, Bf16>(p, context);
  Job job = make_job(p, context);
  return run_rounds<Bf16, Source::kPairs>(job);
}

}  // namespace
}  // namespace attnmux
