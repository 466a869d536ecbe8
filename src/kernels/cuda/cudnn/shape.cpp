// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/shape.h"

namespace attnmux {
namespace {

constexpr int64_t kVector = 8;  // elements of 16 bits in 16 bytes

// Strides of a (B, S, H, D) tensor. One that is never stepped is made a contiguous tensor's, so that it makes no
// difference between shapes.
void canonical_strides(const Tensor& t, int64_t (&strides)[3]) {
  const int64_t contiguous[3] = {t.shape[1] * t.shape[2] * t.shape[3], t.shape[2] * t.shape[3], t.shape[3]};
  for (int i = 0; i < 3; ++i) strides[i] = t.shape[i] > 1 ? t.strides[i] : contiguous[i];
}

// A window as wide as everything is none: the fewer bounds, the faster cuDNN's kernels.
int64_t bound(int64_t width, int64_t everything) { return width < 0 || width >= everything ? kUnlimited : width; }

bool steps(const Tensor& t, int i) { return given(t) && t.shape[i] > 1 && t.strides[i] != 0; }

// Can cuDNN read the caller's bias where it is? Rows of keys in a row, at multiples of 16 bytes.
bool readable_in_place(const Problem& p) {
  if (!given(p.bias) || given(p.dense_mask) || given(p.key_padding)) return false;
  const Tensor& t = p.bias;
  const int64_t vector = t.dtype == ATTNMUX_FP32 ? kVector / 2 : kVector;
  if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0 || t.strides[3] != 1 || t.shape[3] % kVector != 0) return false;
  for (int i = 0; i < 3; ++i) {
    if (steps(t, i) && (t.strides[i] < 0 || t.strides[i] % vector != 0)) return false;
  }
  return true;
}

void set_bias(const Problem& p, CudnnShape& s) {
  if (!given(p.bias) && !given(p.dense_mask) && !given(p.key_padding)) return;
  s.bias_dtype = given(p.bias) ? p.bias.dtype : p.dtype;
  s.bias_in_workspace = readable_in_place(p) ? 0 : 1;
  // Dimensions over which nothing varies stay 1: a padding mask of (B, Skv) needs no row per query.
  const int64_t extents[4] = {p.batch, p.num_heads_q, p.seqlen_q, p.seqlen_kv};
  int64_t pitch = round_up(p.seqlen_kv, kVector);
  for (int i = 3; i >= 0; --i) {
    // key_padding is (B, Skv): its dimension 1 is our 3.
    const bool padding = given(p.key_padding) && (i == 0 || i == 3);
    s.bias_extent[i] = i == 3 || padding || steps(p.bias, i) || steps(p.dense_mask, i) ? extents[i] : 1;
    if (i == 3) {
      s.bias_stride[i] = 1;
    } else if (s.bias_in_workspace == 0 && s.bias_extent[i] > 1) {
      s.bias_stride[i] = p.bias.strides[i];
    } else {
      s.bias_stride[i] = pitch;
    }
    if (i < 3) pitch *= s.bias_extent[i];
  }
}

size_t aligned(size_t bytes) { return (bytes + kCudnnAlignment - 1) / kCudnnAlignment * kCudnnAlignment; }

}  // namespace

uint64_t CudnnShape::hash() const {
  // splitmix64's mixing (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014), word by word.
  uint64_t h = 0x9E3779B97F4A7C15;
  const auto* words = reinterpret_cast<const int64_t*>(this);
  for (size_t i = 0; i < sizeof(*this) / sizeof(int64_t); ++i) {
    h = (h ^ static_cast<uint64_t>(words[i])) * 0xBF58476D1CE4E5B9;
    h ^= h >> 29;
  }
  return h ^ (h >> 32);
}

CudnnShape cudnn_shape(const Problem& p) {
  CudnnShape s{};
  s.device = p.device_id;
  s.dtype = p.dtype;
  s.batch = p.batch;
  s.seqlen_q = p.seqlen_q;
  s.seqlen_kv = p.seqlen_kv;
  s.num_heads_q = p.num_heads_q;
  s.num_heads_kv = p.num_heads_kv;
  s.head_dim = p.head_dim;
  s.head_dim_v = p.head_dim_v;
  canonical_strides(p.q, s.q);
  canonical_strides(p.k, s.k);
  canonical_strides(p.v, s.v);
  canonical_strides(p.out, s.out);
  if (given(p.lse)) {
    s.has_lse = 1;
    const int64_t contiguous[3] = {p.num_heads_q * p.seqlen_q, p.seqlen_q, 1};
    for (int i = 0; i < 3; ++i) s.lse[i] = p.lse.shape[i] > 1 ? p.lse.strides[i] : contiguous[i];
  }
  s.has_lengths = given(p.key_lengths) ? 1 : 0;
  // The diagonal of a row lies in [-seqlen_q, seqlen_kv), wherever the mask is aligned.
  s.window_left = bound(p.window_left, max_of(p.seqlen_q, p.seqlen_kv));
  s.window_right = bound(p.window_right, p.seqlen_q + p.seqlen_kv);
  s.align = s.window_left < 0 && s.window_right < 0 ? ATTNMUX_ALIGN_NONE : p.align;
  // Where both corners are the same, say it in one way.
  if (s.align == ATTNMUX_ALIGN_BOTTOM_RIGHT && p.seqlen_q == p.seqlen_kv && s.has_lengths == 0)
    s.align = ATTNMUX_ALIGN_NONE;
  if (s.align == ATTNMUX_ALIGN_TOP_LEFT) s.align = ATTNMUX_ALIGN_NONE;
  set_bias(p, s);
  return s;
}

CudnnWorkspace cudnn_workspace(const CudnnShape& s, size_t cudnn_bytes) {
  CudnnWorkspace w{};
  const size_t lengths = s.has_lengths != 0 ? aligned(static_cast<size_t>(s.batch) * sizeof(int32_t)) : 0;
  w.lengths_q = aligned(cudnn_bytes);
  w.lengths_kv = w.lengths_q + lengths;
  w.bias = w.lengths_kv + lengths;
  w.bytes = w.bias;
  if (s.bias_in_workspace != 0) {
    const int64_t elements = s.bias_extent[0] * s.bias_stride[0];
    w.bytes += aligned(static_cast<size_t>(elements) * (s.bias_dtype == ATTNMUX_FP32 ? 4 : 2));
  }
  return w;
}

}  // namespace attnmux
