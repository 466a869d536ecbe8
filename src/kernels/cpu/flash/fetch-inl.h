// SPDX-License-Identifier: Apache-2.0
// Software prefetches that run beside the products.
#pragma once

#include "kernels/cpu/flash/masks-inl.h"
#include "kernels/cpu/flash/output-inl.h"

namespace attnmux {
namespace {

// Fetches, row by row while the products of a block keep the arithmetic units busy, what the task reads or writes once
// per block: the output rows, and Q of the next block. With few keys the time to wait for it would show.
struct FetchOutput {
  const Problem& p;
  const Rows& rows;
  int64_t row = 0;

  void operator()(int64_t done, int64_t of) {
    for (const int64_t until = rows.count * done / of; row < until; ++row) {
      const char* out = output_row(p, rows.sequence, rows, row);
      for (int64_t at = 0; at < p.head_dim_v * element_bytes(p.dtype); at += kCacheLine) prefetch_to_write(out + at);
    }
  }
};
struct FetchQueries {
  const Problem& p;
  const Rows* next;
  int64_t row = 0;

  void operator()(int64_t done, int64_t of) {
    if (next == nullptr) return;
    for (const int64_t until = next->count * done / of; row < until; ++row) {
      for (int64_t at = 0; at < p.head_dim * element_bytes(p.dtype); at += kCacheLine)
        __builtin_prefetch(next->q[row] + at, 0, 2);
    }
  }
};

// Beside the product with K: the block's part of a mask and a bias, too, which come from far away, a row of each query.
struct FetchForScores {
  const Problem& p;
  const Rows& rows;
  const KeyBlock& block;
  FetchQueries& queries;
  int64_t row = 0;

  void fetch(const Tensor& t, const char* const* of_rows) const {
    const int64_t size = element_bytes(t.dtype);
    if (!given(t) || t.strides[3] != 1 || (row > 0 && of_rows[row] == of_rows[row - 1])) return;
    for (int64_t at = block.first * size; at < block.last * size; at += kCacheLine)
      __builtin_prefetch(of_rows[row] + at, 0, 3);
  }
  void operator()(int64_t done, int64_t of) {
    queries(done, of);
    for (const int64_t until = rows.count * done / of; row < until; ++row) {
      fetch(p.bias, rows.bias);
      fetch(p.dense_mask, rows.dense);
    }
  }
};

}  // namespace
}  // namespace attnmux
