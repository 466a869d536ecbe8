// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/shape.h"

namespace attnmux {
namespace {

constexpr int64_t kVector = 8;  // elements of 16 bits in 16 bytes

// Strides of a (B, S, H, D) tensor or of its copy. One that is never stepped is made a contiguous tensor's, so that it
// makes no difference between shapes.
void set_strides(const Tensor& t, bool copied, int64_t (&strides)[3]) {
  const int64_t contiguous[3] = {t.shape[1] * t.shape[2] * t.shape[3], t.shape[2] * t.shape[3], t.shape[3]};
  for (int i = 0; i < 3; ++i) strides[i] = t.shape[i] > 1 && !copied ? t.strides[i] : contiguous[i];
}

// A window as wide as everything is none: the fewer bounds, the faster cuDNN's kernels.
int64_t bound(int64_t width, int64_t everything) { return width < 0 || width >= everything ? kUnlimited : width; }

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

Problem attended_part(const Problem& given_problem) {
  Problem p = given_problem;
  const bool bottom_right = p.align == ATTNMUX_ALIGN_BOTTOM_RIGHT;
  if ((p.window_left < 0 && p.window_right < 0) || (bottom_right && given(p.key_lengths))) return p;
  const int64_t delta = bottom_right ? p.seqlen_kv - p.seqlen_q : 0;
  // The first query sees the first key, the last query the last one. Compare before adding: windows may be very wide.
  const int64_t first = p.window_left < 0 || p.window_left >= delta ? 0 : min_of(delta - p.window_left, p.seqlen_kv);
  const int64_t behind = p.seqlen_q + delta;
  const int64_t last = p.window_right < 0 || p.window_right >= p.seqlen_kv - behind
                           ? p.seqlen_kv
                           : max_of(behind + p.window_right, first);
  p.seqlen_kv = last - first;
  const auto cut = [&](Tensor& t) {
    if (!given(t)) return;
    const int64_t bytes = first * t.strides[1] * (t.dtype == p.dtype ? 2 : 1);
    if (t.data != nullptr) t.data = static_cast<char*>(t.data) + bytes;
    t.shape[1] = p.seqlen_kv;
  };
  cut(p.k);
  cut(p.v);
  cut(p.key_padding);
  return p;
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
  s.has_padding = given(p.key_padding) ? 1 : 0;
  // cuDNN multiplies every V by its probability, and adds -inf to scores: NaN survives both.
  s.copies_k = s.has_padding;
  s.copies_v = given(p.key_padding) || given(p.key_lengths) ? 1 : 0;
  set_strides(p.q, false, s.q);
  set_strides(p.k, s.copies_k != 0, s.k);
  set_strides(p.v, s.copies_v != 0, s.v);
  set_strides(p.out, false, s.out);
  if (given(p.lse)) {
    s.has_lse = 1;
    const int64_t contiguous[3] = {p.num_heads_q * p.seqlen_q, p.seqlen_q, 1};
    for (int i = 0; i < 3; ++i) s.lse[i] = p.lse.shape[i] > 1 ? p.lse.strides[i] : contiguous[i];
  }
  // The diagonal of a row lies in [-seqlen_q, seqlen_kv), wherever the mask is aligned.
  s.window_left = bound(p.window_left, max_of(p.seqlen_q, p.seqlen_kv));
  s.window_right = bound(p.window_right, p.seqlen_q + p.seqlen_kv);
  const bool windowed = s.window_left >= 0 || s.window_right >= 0;
  // More queries than keys under a window: cuDNN takes them with lengths only.
  s.has_lengths = given(p.key_lengths) || (windowed && p.seqlen_q > p.seqlen_kv) ? 1 : 0;
  // Where both corners are the same, say it in one way.
  const bool same_corner = p.seqlen_q == p.seqlen_kv && s.has_lengths == 0;
  const bool bottom_right = windowed && p.align == ATTNMUX_ALIGN_BOTTOM_RIGHT && !same_corner;
  s.align = bottom_right ? ATTNMUX_ALIGN_BOTTOM_RIGHT : ATTNMUX_ALIGN_NONE;
  return s;
}

int64_t cudnn_padding_pitch(int64_t seqlen_kv) { return round_up(seqlen_kv, kVector); }

CudnnWorkspace cudnn_workspace(const CudnnShape& s, size_t cudnn_bytes) {
  constexpr int64_t kElementBytes = 2;
  CudnnWorkspace w{};
  size_t end = aligned(cudnn_bytes);
  const auto part = [&end](int64_t wanted, int64_t bytes) {
    const size_t begin = end;
    if (wanted != 0) end += aligned(static_cast<size_t>(bytes));
    return begin;
  };
  const int64_t keys = s.batch * s.seqlen_kv * s.num_heads_kv;
  w.lengths_q = part(s.has_lengths, s.batch * 4);
  w.lengths_kv = part(s.has_lengths, s.batch * 4);
  w.padding = part(s.has_padding, s.batch * cudnn_padding_pitch(s.seqlen_kv) * kElementBytes);
  w.k = part(s.copies_k, keys * s.head_dim * kElementBytes);
  w.v = part(s.copies_v, keys * s.head_dim_v * kElementBytes);
  w.bytes = end;
  return w;
}

}  // namespace attnmux
