// SPDX-License-Identifier: Apache-2.0
// Everything of a call that cuDNN bakes into a graph, as numbers that can be hashed and compared: two calls with the same
// shape use the same graph. What is not here (pointers, the scale, the values of lengths) comes with each run.
#pragma once

#include <cstring>

#include "kernels/kernel.h"

namespace attnmux {

struct CudnnShape {
  int64_t device, dtype;
  int64_t batch, seqlen_q, seqlen_kv, num_heads_q, num_heads_kv, head_dim, head_dim_v;
  int64_t q[3], k[3], v[3], out[3];  // strides of batch, row, head
  int64_t has_lse, lse[3];           // strides of batch, head, row
  int64_t has_lengths;
  int64_t window_left, window_right, align;  // -1: unlimited
  // What is added to the scores. Masks and biases that cuDNN does not read as they are become one in the workspace.
  int64_t bias_dtype, bias_in_workspace;  // dtype 0: none
  int64_t bias_extent[4], bias_stride[4];  // (batch, head, query, key)

  bool operator==(const CudnnShape& other) const { return std::memcmp(this, &other, sizeof(*this)) == 0; }
  uint64_t hash() const;
};
static_assert(sizeof(CudnnShape) % sizeof(int64_t) == 0, "hashed word by word, without padding");

CudnnShape cudnn_shape(const Problem& problem);

/// Where our own parts of the workspace lie behind cuDNN's: offsets in bytes from a base aligned to kCudnnAlignment.
struct CudnnWorkspace {
  size_t lengths_q, lengths_kv, bias, bytes;
};
inline constexpr size_t kCudnnAlignment = 256;
CudnnWorkspace cudnn_workspace(const CudnnShape& shape, size_t cudnn_bytes);

}  // namespace attnmux
