// SPDX-License-Identifier: Apache-2.0
// Everything of a call that cuDNN bakes into a graph, as numbers that can be hashed and compared: two calls with the
// same shape use the same graph. What is not here (pointers, the scale, the values of lengths) comes with each run.
#pragma once

#include <cstring>

#include "kernels/kernel.h"

namespace attnmux {

struct CudnnShape {
  int64_t device, dtype;
  int64_t batch, seqlen_q, seqlen_kv, num_heads_q, num_heads_kv, head_dim, head_dim_v;
  int64_t q[3], k[3], v[3], out[3];          // strides of batch, row, head
  int64_t has_lse, lse[3];                   // strides of batch, head, row
  int64_t has_lengths;                       // made in the workspace
  int64_t has_padding;                       // made in the workspace, as a bias of 0 and -inf
  int64_t copies_k, copies_v;                // copied into the workspace, with zeros for keys that nobody attends to
  int64_t window_left, window_right, align;  // -1: unlimited

  bool operator==(const CudnnShape& other) const { return std::memcmp(this, &other, sizeof(*this)) == 0; }
  uint64_t hash() const;
};
static_assert(sizeof(CudnnShape) % sizeof(int64_t) == 0, "hashed word by word, without padding");

/// The same problem without the keys in front and behind that no query can attend to: less to do, and what K and V hold
/// there is out of reach. Where lengths on the device decide, they stay.
Problem attended_part(const Problem& problem);

/// Of an attended part.
CudnnShape cudnn_shape(const Problem& p);

/// Where our own parts of the workspace lie behind cuDNN's: offsets in bytes from a base aligned to kCudnnAlignment.
struct CudnnWorkspace {
  size_t lengths_q, lengths_kv, padding, k, v, bytes;
};
inline constexpr size_t kCudnnAlignment = 256;
CudnnWorkspace cudnn_workspace(const CudnnShape& shape, size_t cudnn_bytes);
/// Elements from one batch entry of the padding to the next.
int64_t cudnn_padding_pitch(int64_t seqlen_kv);

}  // namespace attnmux
