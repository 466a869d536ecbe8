// SPDX-License-Identifier: Apache-2.0
// The end of a block: O^T[d][row] / sum becomes rows of the output, and the log-sum-exp is written.
#pragma once

#include "kernels/cpu/flash/rows-inl.h"
#include "kernels/cpu/flash/softmax-inl.h"

namespace attnmux {
namespace {

inline void store_lanes(int32_t dtype, void* to, F x) {
  switch (dtype) {
    case ATTNMUX_FP16:
      return store_fp16(to, x);
    case ATTNMUX_BF16:
      return store_low_halves(to, round_to_bf16(x));
    default:
      return store(static_cast<float*>(to), x);
  }
}

// The first `count` lanes.
inline void store_some(int32_t dtype, char* to, F x, int64_t count) {
  if (count >= kLanes) return store_lanes(dtype, to, x);
  alignas(64) char buffer[kLanes * 4];
  store_lanes(dtype, buffer, x);
  __builtin_memcpy(to, buffer, static_cast<size_t>(count * element_bytes(dtype)));
}

inline void store_bytes(char* to, F x, int64_t bytes) {
  if (bytes >= kLanes * 4) return store(reinterpret_cast<float*>(to), x);
  __builtin_memcpy(to, &x, static_cast<size_t>(bytes));
}

inline float log_sum_exp(float maximum, float sum, float scale) {
  return sum == 0 ? -kInfinity : static_cast<float>(static_cast<double>(maximum) * scale + __builtin_log(sum));
}

inline char* output_row(const Problem& p, const Sequence& s, const Rows& rows, int64_t i) {
  return address(p.out, s.out_offset + rows.query[i] * p.out.strides[1] + rows.head[i] * p.out.strides[2]);
}

inline void write_lse(const Problem& p, const Sequence& s, const Rows& rows, const SoftmaxState& state, float scale) {
  for (int64_t i = 0; i < rows.count; ++i) {
    *element<float>(p.lse, s.lse_offset + rows.head[i] * p.lse.strides[1] + rows.query[i] * p.lse.strides[2]) =
        log_sum_exp(state.maximum[i], state.sum[i], scale);
  }
}

// kColumns columns of kLanes queries, transposed: rows of kLanes units, which are numbers of fp32 or pairs of bf16.
template <bool kPairs>
inline void finish_columns(const float* accumulator, int64_t columns, F inverse, F (&x)[kLanes]) {
  const auto column = [&](int64_t d) {
    return d < columns ? load(accumulator + d * kBlocking.rows) * inverse : zero();
  };
  ATTNMUX_UNROLL(16)
  for (int64_t i = 0; i < kLanes; ++i) x[i] = kPairs ? pair_bf16(column(2 * i), column(2 * i + 1)) : column(i);
  transpose(x);
}

inline void write_output(const Problem& p, const Sequence& s, const Rows& rows, const SoftmaxState& state,
                         const float* accumulator) {
  const int64_t size = element_bytes(p.dtype);
  const bool pairs = p.dtype == ATTNMUX_BF16;
  const int64_t step = pairs ? 2 * kLanes : kLanes;
  for (int64_t v = 0; v < rows.vectors; ++v) {
    const F sum = load(state.sum + v * kLanes);
    const I empty = sum == zero();  // no key to attend to
    const F inverse = select(empty, zero(), broadcast(1.0f) / sum);
    const int64_t count = min_of(kLanes, rows.count - v * kLanes);
    for (int64_t d = 0; d < p.head_dim_v; d += step) {
      const float* from = accumulator + d * kBlocking.rows + v * kLanes;
      const int64_t width = min_of(step, p.head_dim_v - d);
      F x[kLanes];
      if (pairs) {
        finish_columns<true>(from, width, inverse, x);
        for (int64_t i = 0; i < count; ++i)
          store_bytes(output_row(p, s, rows, v * kLanes + i) + d * size, x[i], width * size);
      } else {
        finish_columns<false>(from, width, inverse, x);
        for (int64_t i = 0; i < count; ++i)
          store_some(p.dtype, output_row(p, s, rows, v * kLanes + i) + d * size, x[i], width);
      }
    }
  }
}

// Rows without a key.
inline void write_empty(const Problem& p, const Sequence& s, const Rows& rows) {
  for (int64_t i = 0; i < rows.count; ++i) {
    __builtin_memset(output_row(p, s, rows, i), 0, static_cast<size_t>(p.head_dim_v * element_bytes(p.dtype)));
    if (given(p.lse)) {
      *element<float>(p.lse, s.lse_offset + rows.head[i] * p.lse.strides[1] + rows.query[i] * p.lse.strides[2]) =
          -kInfinity;
    }
  }
}

}  // namespace
}  // namespace attnmux
