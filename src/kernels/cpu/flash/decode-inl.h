// SPDX-License-Identifier: Apache-2.0
// Attention with few queries, once for all instruction sets: the next tokens of a language model (Flash-Decoding: Dao,
// Haziza, Massa, Sizov, 2023).
//
// Such a call reads all of K and V once and computes little with it, so memory decides. K and V are read where they
// are, never packed; the query heads of a kv head are stacked, so that each row is read once for all of them; keys are
// split into fixed ranges, which are the work items, and their partial results are combined in order.
#pragma once

#include "kernels/cpu/flash/decode_scores-inl.h"
#include "kernels/cpu/flash/output-inl.h"
#include "kernels/cpu/isa/flush_denormals.h"

namespace attnmux {
namespace {

// ---- Values ---------------------------------------------------------------------------------------------------------

// Bytes of a row of V that become a vector of sums.
template <class Product, Source kSource>
constexpr int64_t kVectorBytes = kLanes * kSourceBytes<kSource> / (Product::kElements * kParts<kSource>);
// Vectors of sums whose columns alternate.
template <class Product, Source kSource>
constexpr int kInterleaved = Product::kElements * kParts<kSource>;

// Columns of V at byte `at`, of one key (units of one number) or of two (pairs; a null row is zeros): kVectors vectors
// of units. bf16 comes as the even columns of 2·kLanes, then the odd ones; write_decode_row() puts them in order.
template <class Product, Source kSource, int kVectors, bool kWhole>
inline void load_value_vectors(const char* const (&rows)[Product::kElements], int64_t at, int64_t bytes,
                               F (&v)[kVectors]) {
  constexpr int64_t kChunk = kLanes * kSourceBytes<kSource>;
  if constexpr (Product::kElements == 1) {
    constexpr int kLoads = kVectors / kParts<kSource>;
    ATTNMUX_UNROLL(8)
    for (int j = 0; j < kLoads; ++j) {
      const char* from = rows[0] + at + j * kChunk;
      const F x = kWhole ? load_lanes<kSource>(from) : load_some<kSource>(from, bytes - at - j * kChunk);
      ATTNMUX_UNROLL(2)
      for (int part = 0; part < kParts<kSource>; ++part) v[j * kParts<kSource> + part] = part_of<kSource>(x, part);
    }
  } else {
    ATTNMUX_UNROLL(4)
    for (int j = 0; j < kVectors / 2; ++j) {
      const int64_t from = at + j * kChunk;
      const I a = bits(kWhole ? load_lanes<kSource>(rows[0] + from) : load_some<kSource>(rows[0] + from, bytes - from));
      I b{};
      if (rows[1] != nullptr)
        b = bits(kWhole ? load_lanes<kSource>(rows[1] + from) : load_some<kSource>(rows[1] + from, bytes - from));
      v[2 * j] = from_bits((a & 0xffff) | (b << 16));
      v[2 * j + 1] = from_bits(((a >> 16) & 0xffff) | (b & static_cast<int32_t>(0xffff0000)));
    }
  }
}

// One chunk of columns: O = factor·O + P·V for kRows rows.
template <class Product, Source kSource, int kRows, int kVectors, bool kWhole>
inline void decode_values(const DecodeBlock& block, const float* weights, int64_t at, int64_t bytes, bool started,
                          const float* factor, FetchRows& fetch, float* accumulator, int64_t row_floats) {
  constexpr int64_t kKeys = kLanes / kRows, kUnitKeys = Product::kElements;
  constexpr int64_t kChunk = kVectors * kVectorBytes<Product, kSource>;
  F sum[kRows][kVectors];
  ATTNMUX_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    ATTNMUX_UNROLL(8)
    for (int j = 0; j < kVectors; ++j)
      sum[r][j] = started ? load(accumulator + r * row_floats + j * kLanes) * broadcast(factor[r]) : zero();
  }
  for (int64_t group = 0; group < block.count; group += kKeys * kUnitKeys) {
    const int64_t units = min_of(kKeys, block.count - group);
    for (int64_t i = 0; i < units; ++i) {
      const char* rows[kUnitKeys];
      for (int64_t e = 0; e < kUnitKeys; ++e) {
        const int64_t key = group + e * kKeys + i;
        rows[e] = kUnitKeys == 1 || key < block.count ? block.v[key] : nullptr;
      }
      fetch.lines(kUnitKeys * kChunk / kCacheLine);
      F v[kVectors];
      load_value_vectors<Product, kSource, kVectors, kWhole>(rows, at, bytes, v);
      const float* unit = weights + (group / kUnitKeys + i) * kRows;
      ATTNMUX_UNROLL(4)
      for (int r = 0; r < kRows; ++r) {
        const F weight = broadcast(unit[r]);
        ATTNMUX_UNROLL(8)
        for (int j = 0; j < kVectors; ++j) sum[r][j] = Product::madd(weight, v[j], sum[r][j]);
      }
    }
  }
  ATTNMUX_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    ATTNMUX_UNROLL(8)
    for (int j = 0; j < kVectors; ++j) store(accumulator + r * row_floats + j * kLanes, sum[r][j]);
  }
}

// ---- Blocks, ranges -------------------------------------------------------------------------------------------------

// One step of a block for the kRows rows from first_row on.
template <class Product, Source kSource, int kRows>
inline void score_tile(const DecodeJob& job, const DecodeRows& all, const DecodeBlock& block, int64_t first_row,
                       const DecodeFetch& ahead, const float* queries, float* scores) {
  const Problem& p = *job.p;
  const FetchRows values{block.v, block.v + (first_row == 0 && ahead.values ? block.count : 0), 0,
                         p.head_dim_v * element_bytes(p.dtype), ahead.near};
  decode_scores<Product, kSource, kRows>(p, block, queries + first_row * job.layout.query_units, job.layout.query_units,
                                         values, scores);
  adjust_decode_scores<kRows>(p, job.scale, all, block, first_row, min_of(kRows, all.count - first_row), scores);
}

// Lanes of rows that do not exist are computed into rows behind the last, which the layout has room for.
template <class Product, Source kSource, int kRows>
inline void value_tile(const DecodeJob& job, const DecodeBlock& block, int64_t first_row, bool started,
                       const DecodeFetch& ahead, const float* weights, const float* factor, float* accumulator) {
  const Problem& p = *job.p;
  const int64_t size = element_bytes(p.dtype), row_floats = job.layout.row_floats, bytes = p.head_dim_v * size;
  constexpr int kAtOnce = kLanes == 16 ? (kRows == 1 ? 8 : 4) : (kRows == 4 ? 2 : 4);
  constexpr int64_t kChunk = kVectorBytes<Product, kSource>;
  FetchRows fetch{block.k, block.k + (first_row == 0 && ahead.keys != 0 ? block.count : 0), ahead.keys,
                  p.head_dim * size, ahead.near};
  int64_t at = 0, column = 0;
  for (; at + kAtOnce * kChunk <= bytes; at += kAtOnce * kChunk, column += kAtOnce * kLanes) {
    decode_values<Product, kSource, kRows, kAtOnce, true>(block, weights, at, bytes, started, factor, fetch,
                                                          accumulator + column, row_floats);
  }
  constexpr int kFew = kInterleaved<Product, kSource>;
  for (; at < bytes; at += kFew * kChunk, column += kFew * kLanes) {
    if (at + kFew * kChunk <= bytes) {
      decode_values<Product, kSource, kRows, kFew, true>(block, weights, at, bytes, started, factor, fetch,
                                                         accumulator + column, row_floats);
    } else {
      decode_values<Product, kSource, kRows, kFew, false>(block, weights, at, bytes, started, factor, fetch,
                                                          accumulator + column, row_floats);
    }
  }
}

template <class Product, Source kSource>
inline void pack_decode_queries(const Problem& p, const Scale& scale, const DecodeRows& rows, int64_t query_units,
                                float* queries) {
  constexpr int64_t kChunk = kLanes * kSourceBytes<kSource>;
  const int64_t bytes = p.head_dim * element_bytes(p.dtype), padded = decode_rows_padded(rows.count);
  for (int64_t row = 0; row < padded; ++row) {
    const int64_t existing = min_of(row, rows.count - 1);
    const char* from = address(
        p.q, rows.sequence.q_offset + rows.query[existing] * p.q.strides[1] + rows.head[existing] * p.q.strides[2]);
    float* to = queries + row * query_units;
    const auto put = [&](F x) {
      for (int part = 0; part < kParts<kSource>; ++part, to += kLanes) store(to, part_of<kSource>(x, part));
    };
    int64_t at = 0;
    for (; at + kChunk <= bytes; at += kChunk) put(load_lanes<kSource>(from + at));
    if (at < bytes) put(load_some<kSource>(from + at, bytes - at));
    apply_sign<kSource>(scale.sign, query_units, queries + row * query_units);
  }
}

// Calls use<kRows>(first_row) for four, two or one of the rows at a time.
template <class Use>
inline void for_each_tile(int64_t rows, const Use& use) {
  for (int64_t row = 0; row < rows; row += 4) {
    switch (min_of(4, rows - row)) {
      case 1:
        use.template operator()<1>(row);
        break;
      case 2:
        use.template operator()<2>(row);
        break;
      default:
        use.template operator()<4>(row);
        break;
    }
  }
}

// One block of keys for all rows of a kv head. A step is done for all of them before the next: the softmax of a few
// rows is a chain of latencies, which then run side by side.
template <class Product, Source kSource>
inline void decode_block(const DecodeJob& job, const DecodeRows& rows, const DecodeBlock& block, bool started,
                         const DecodeFetch& ahead, const DecodeScratch& scratch, float* partials) {
  const Problem& p = *job.p;
  const DecodeLayout& layout = job.layout;
  const int64_t value_floats = layout.row_floats - kLanes;
  const auto scores = [&](int64_t row) { return scratch.scores + row / 4 * layout.tile_scores; };
  float maximum[kDecodeRows], sum[kDecodeRows], factor[kDecodeRows];
  for (int64_t row = 0; row < decode_rows_padded(rows.count); ++row) {
    const Partial partial = partial_at(layout, partials, min_of(row, rows.count - 1), value_floats);
    maximum[row] = started ? *partial.maximum : -kInfinity;
    sum[row] = started ? *partial.sum : 0;
  }
  for_each_tile(rows.count, [&]<int kRows>(int64_t row) {
    score_tile<Product, kSource, kRows>(job, rows, block, row, ahead, scratch.queries, scores(row));
  });
  for_each_tile(rows.count, [&]<int kRows>(int64_t row) {
    decode_softmax<Product, kRows>(p, rows, block, row, job.scale.base2, started, scores(row), maximum + row, sum + row,
                                   factor + row);
  });
  for_each_tile(rows.count, [&]<int kRows>(int64_t row) {
    value_tile<Product, kSource, kRows>(job, block, row, started, ahead, scores(row), factor + row,
                                        partials + row * layout.row_floats);
  });
  for (int64_t row = 0; row < rows.count; ++row) {
    const Partial partial = partial_at(layout, partials, row, value_floats);
    *partial.maximum = maximum[row];
    *partial.sum = sum[row];
  }
}

// One range of keys of all rows of `heads` kv heads, the first of which `rows` holds. Blocks are the outer loop: where
// the heads of a key lie next to each other in memory, each page is then visited once.
template <class Product, Source kSource>
void decode_range(const DecodeJob& job, DecodeRows& rows, int64_t range, int64_t heads, char* scratch_memory) {
  const Problem& p = *job.p;
  const DecodeLayout& layout = job.layout;
  const int64_t first_head = rows.kv_head, value_floats = layout.row_floats - kLanes, size = element_bytes(p.dtype);
  const int64_t k_head = p.k.strides[2] * size, v_head = p.v.strides[2] * size, k_row = p.k.strides[1] * size;
  const auto partials_of = [&](int64_t head) {
    const int64_t pair = rows.batch * p.num_heads_kv + first_head + head;
    return job.partials + (pair * layout.ranges + range) * layout.rows * layout.row_floats;
  };
  auto* queries = reinterpret_cast<float*>(scratch_memory);
  float* scores = queries + p.num_heads_kv * layout.queries;
  const int64_t last = min_of((range + 1) * layout.range, rows.any.last), most = decode_block_keys(p);
  int64_t key = max_of(range * layout.range, rows.any.first);
  DecodeFetch ahead{0, job.fetches, heads == 1};
  bool started = false;
  while (key < last) {
    DecodeBlock block;
    move_to_head(p, first_head, rows);
    key = find_block(p, rows, key, last, most, block);
    if (block.count == 0) break;
    for (int64_t head = 0; head < heads; ++head) {
      if (head > 0) {
        move_to_head(p, first_head + head, rows);
        move_block(k_head, v_head, block);
      }
      const DecodeScratch scratch{queries + head * layout.queries, scores};
      if (!started) pack_decode_queries<Product, kSource>(p, job.scale, rows, layout.query_units, scratch.queries);
      // K of the next head, or else of the next block, is fetched during the product with V.
      const int64_t next_block = key < last ? block.count * k_row - head * k_head : 0;
      ahead.keys = !job.fetches ? 0 : head + 1 < heads ? k_head : next_block;
      decode_block<Product, kSource>(job, rows, block, started, ahead, scratch, partials_of(head));
    }
    started = true;
  }
  for (int64_t head = 0; head < heads && !started; ++head) {
    for (int64_t row = 0; row < rows.count; ++row) {
      const Partial partial = partial_at(layout, partials_of(head), row, value_floats);
      *partial.maximum = -kInfinity;
      *partial.sum = 0;
    }
  }
  move_to_head(p, first_head, rows);
}

// ---- The end --------------------------------------------------------------------------------------------------------

template <int32_t kDtype, int kVectors>
inline void write_decode_columns(const float* accumulator, F inverse, int64_t columns, char* out) {
  constexpr int64_t kChunk = kLanes * kVectors;
  const auto chunk = [&](int64_t d, auto&& put) {
    F x[kVectors];
    x[0] = load(accumulator + d);
    if constexpr (kVectors == 2) zip(x[0], load(accumulator + d + kLanes), x[0], x[1]);
    ATTNMUX_UNROLL(2)
    for (int64_t e = 0; e < kVectors; ++e) {
      const int64_t from = d + e * kLanes;
      put(out + from * element_bytes(kDtype), x[e] * inverse, columns - from);
    }
  };
  int64_t d = 0;
  for (; d + kChunk <= columns; d += kChunk) chunk(d, [](char* to, F x, int64_t) { store_lanes(kDtype, to, x); });
  if (d == columns) return;
  chunk(d, [](char* to, F x, int64_t left) {
    if (left > 0) store_some(kDtype, to, x, left);
  });
}

inline void write_decode_row(const Problem& p, const DecodeRows& rows, int64_t row, int64_t interleaved,
                             const float* accumulator, float maximum, float sum, float natural) {
  const Sequence& s = rows.sequence;
  char* out = address(p.out, s.out_offset + rows.query[row] * p.out.strides[1] + rows.head[row] * p.out.strides[2]);
  const F inverse = broadcast(sum == 0 ? 0 : 1 / sum);
  if (p.dtype == ATTNMUX_FP32) {
    write_decode_columns<ATTNMUX_FP32, 1>(accumulator, inverse, p.head_dim_v, out);
  } else if (p.dtype == ATTNMUX_FP16) {
    write_decode_columns<ATTNMUX_FP16, 1>(accumulator, inverse, p.head_dim_v, out);
  } else if (interleaved == 1) {
    write_decode_columns<ATTNMUX_BF16, 1>(accumulator, inverse, p.head_dim_v, out);
  } else {
    write_decode_columns<ATTNMUX_BF16, 2>(accumulator, inverse, p.head_dim_v, out);
  }
  if (given(p.lse)) {
    *element<float>(p.lse, s.lse_offset + rows.head[row] * p.lse.strides[1] + rows.query[row] * p.lse.strides[2]) =
        log_sum_exp(maximum, sum, natural);
  }
}

// Combines the ranges of a row in their order, into the first of them.
inline void combine_ranges(const DecodeJob& job, float* partials, int64_t row) {
  const DecodeLayout& layout = job.layout;
  const int64_t value_floats = layout.row_floats - kLanes, range_floats = layout.rows * layout.row_floats;
  float maximum = -kInfinity;
  for (int64_t i = 0; i < layout.ranges; ++i) {
    const float m = *partial_at(layout, partials + i * range_floats, row, value_floats).maximum;
    maximum = m > maximum ? m : maximum;
  }
  const float shift = maximum == -kInfinity ? 0 : maximum;
  const Partial first = partial_at(layout, partials, row, value_floats);
  float sum = 0;
  bool started = false;
  for (int64_t i = 0; i < layout.ranges; ++i) {
    const Partial partial = partial_at(layout, partials + i * range_floats, row, value_floats);
    if (*partial.sum == 0) continue;  // no key there, or none that counts
    const F factor = exp2<6>(broadcast(*partial.maximum - shift) * broadcast(job.scale.base2));
    sum += *partial.sum * factor[0];
    for (int64_t d = 0; d < value_floats; d += kLanes) {
      const F x = load(partial.accumulator + d) * factor;
      store(first.accumulator + d, started ? load(first.accumulator + d) + x : x);
    }
    started = true;
  }
  if (!started) {
    for (int64_t d = 0; d < value_floats; ++d) first.accumulator[d] = 0;
  }
  *first.maximum = maximum;
  *first.sum = sum;
}

inline void finish_pair(const DecodeJob& job, const DecodeRows& rows) {
  const Problem& p = *job.p;
  const DecodeLayout& layout = job.layout;
  const int64_t pair = rows.batch * p.num_heads_kv + rows.kv_head, value_floats = layout.row_floats - kLanes;
  float* partials = job.partials + pair * layout.ranges * layout.rows * layout.row_floats;
  for (int64_t row = 0; row < rows.count; ++row) {
    const Partial result = partial_at(layout, partials, row, value_floats);
    // One range whose keys count for something is the result already.
    if (layout.ranges > 1 || *result.sum == 0) combine_ranges(job, partials, row);
    write_decode_row(p, rows, row, job.interleaved, result.accumulator, *result.maximum, *result.sum,
                     job.scale.natural);
  }
}

// Items count ranges within kv heads (or all of them together) within batch entries.
template <class Product, Source kSource>
void decode_task(void* arg, int64_t task) {
  auto& job = *static_cast<DecodeJob*>(arg);
  const Problem& p = *job.p;
  const DenormalMode mode = flush_denormals();
  char* scratch = static_cast<char*>(job.context->workspace) + task * job.layout.scratch;
  DecodeRows rows;
  int64_t found = -1;
  for (int64_t item; (item = take_item(job.next)) < job.items;) {
    const int64_t pair = item / job.layout.ranges * job.heads_together;
    if (pair != found) find_decode_rows(p, pair / p.num_heads_kv, pair % p.num_heads_kv, rows);
    found = pair;
    if (rows.count == 0) continue;
    decode_range<Product, kSource>(job, rows, item % job.layout.ranges, job.heads_together, scratch);
    for (int64_t head = 0; head < job.heads_together && job.layout.ranges == 1; ++head) {
      move_to_head(p, pair % p.num_heads_kv + head, rows);
      finish_pair(job, rows);
    }
    move_to_head(p, pair % p.num_heads_kv, rows);
  }
  restore_denormals(mode);
}

inline void finish_task(void* arg, int64_t /*task*/) {
  auto& job = *static_cast<DecodeJob*>(arg);
  const Problem& p = *job.p;
  const DenormalMode mode = flush_denormals();
  DecodeRows rows;
  for (int64_t pair; (pair = take_item(job.next)) < job.items;) {
    find_decode_rows(p, pair / p.num_heads_kv, pair % p.num_heads_kv, rows);
    finish_pair(job, rows);
  }
  restore_denormals(mode);
}

inline int64_t magnitude_of(int64_t x) { return x < 0 ? -x : x; }

template <class Product, Source kSource>
attnmux_code run_decode(const Problem& p, const RunContext& context) {
  DecodeJob job{};
  job.p = &p;
  job.context = &context;
  job.layout = make_decode_layout(p, kBlocking, p.seqlen_q, context.num_threads);
  job.scale = make_scale(p);
  job.heads_together = 1;
  job.interleaved = kInterleaved<Product, kSource>;
  job.partials = reinterpret_cast<float*>(static_cast<char*>(context.workspace) + job.layout.partials_offset);
  const int64_t pairs = p.batch * p.num_heads_kv;
  const int64_t products = p.batch * p.num_heads_q * p.seqlen_q * p.seqlen_kv * (p.head_dim + p.head_dim_v);
  const bool small = products < kInlineProducts;
  job.fetches = !small;
  const auto run = [&](int64_t items, void (*task)(void*, int64_t)) {
    job.next = 0;
    job.items = items;
    const int64_t tasks = small ? 1 : min_of(context.num_threads, items);
    return context.parallel_for(context.pool, tasks, task, &job) == 0;
  };
  // The order of the work, and so this choice, does not change a result.
  const bool neighbours = magnitude_of(p.k.strides[2]) < magnitude_of(p.k.strides[1]);
  if (neighbours && (small || p.batch * job.layout.ranges >= 2 * context.num_threads))
    job.heads_together = p.num_heads_kv;
  if (!run(pairs / job.heads_together * job.layout.ranges, decode_task<Product, kSource>))
    return ATTNMUX_EXECUTOR_FAILED;
  if (job.layout.ranges > 1 && !run(pairs, finish_task)) return ATTNMUX_EXECUTOR_FAILED;
  return ATTNMUX_OK;
}

}  // namespace
}  // namespace attnmux
