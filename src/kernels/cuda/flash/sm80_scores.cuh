// SPDX-License-Identifier: Apache-2.0
// What happens to a row tile of scores between the two products: hooks for scale, softcap, bias and masks, the online
// softmax, dropout. score[n][0] and [1] are of row lane/4 and the keys 8n + 2(lane%4) and the next, [2] and [3] of the
// row 8 further.
#pragma once

#include <cfloat>
#include <climits>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/flash/sm80.h"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace attnmux {
namespace {

constexpr float kFlashLog2E = 1.4426950408889634f, kFlashLn2 = 0.6931471805599453f;

// Running maximum and this lane's part of the running sum of a row. The maximum is of unscaled products,
// or of finished scores (`natural`).
struct RowState {
  float maximum = -INFINITY, sum = 0;
  __device__ float log_sum_exp(bool natural, float row_sum, float scale_log2) const {
    if (natural) return maximum + logf(row_sum);
    return (maximum * scale_log2 + log2f(row_sum)) * kFlashLn2;  // the same rounded product as in the exponents
  }
};

// The four lanes of a row are neighbours.
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
  return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}

// The online softmax of a row tile in steps, so that those of several row tiles, or of warps that share rows, can run
// side by side: maxima of the tile, whether they are taken (takes_maximum), the factors of what was summed so far
// (renew), and probabilities. `factor` makes base-2 exponents of scores: scale·log2(e) of products, log2(e) of finished
// scores.
//
// fmaxf ignores NaN; a NaN score makes its probability NaN, and with it sum and output.
template <int kTiles>
__device__ inline void row_maxima(const float (&score)[kTiles][4], float (&largest)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    largest[half] = score[0][2 * half];
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
      largest[half] = fmaxf(largest[half], fmaxf(score[n][2 * half], score[n][2 * half + 1]));
    largest[half] = quad_max(largest[half]);
  }
}

// The maximum only keeps exponents in range, so an older one does as well while it is not more than kStale powers of
// two behind (Shah et al., "FlashAttention-4", 2026): probabilities then are up to 2^kStale, which sums in fp32 and
// 16-bit floats hold with the same relative error. False if no row of the warp takes a new one: nothing is to be
// rescaled.
constexpr float kStale = 8;

__device__ inline bool takes_maximum(bool lazy, float factor, const RowState (&state)[2], float (&largest)[2]) {
  bool behind = false;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    largest[half] = fmaxf(largest[half], state[half].maximum);
    behind = behind || (largest[half] - state[half].maximum) * factor > kStale;
  }
  return !lazy || __any_sync(0xFFFFFFFFu, behind);
}

// The difference first: exactly 1 where the maximum stays. Of products it would be the rounding of one, which over some
// hundred tiles of keys adds up in the sum.
__device__ inline void renew(float factor, const float (&largest)[2], RowState (&state)[2], float (&rescale)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float newest = largest[half] == -INFINITY ? 0 : largest[half];
    rescale[half] = ptx::exp2_approximate((state[half].maximum - newest) * factor);
    state[half].maximum = largest[half];
    state[half].sum *= rescale[half];
  }
}

// Of finished scores (kNatural) the difference is taken before the base-2 scaling, so that those as large as FLT_MAX
// stay finite. A row without any attended key so far has probabilities of 2^-inf.
template <bool kNatural, int kTiles>
__device__ inline void probabilities(float factor, float (&score)[kTiles][4], RowState (&state)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float maximum = state[half].maximum == -INFINITY ? 0 : state[half].maximum, shift = maximum * factor;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& x = score[n][2 * half + i];
        x = ptx::exp2_approximate(kNatural ? (x - maximum) * factor : fmaf(x, factor, -shift));
        sum += x;
      }
    }
    state[half].sum += sum;
  }
}

// All steps, for rows that one warp has alone. False: nothing is to be rescaled.
template <bool kNatural, int kTiles>
__device__ inline bool softmax(float (&score)[kTiles][4], bool lazy, float factor, RowState (&state)[2],
                               float (&rescale)[2]) {
  float largest[2];
  row_maxima<kTiles>(score, largest);
  const bool taken = takes_maximum(lazy, factor, state, largest);
  if (taken) renew(factor, largest, state, rescale);
  probabilities<kNatural, kTiles>(factor, score, state);
  return taken;
}

// Which keys causal, window and key length leave to a query: [max(0, query + first), min(query + last, key_length)),
// with 32-bit numbers, which check() sees to.
struct Positions {
  int first, last, key_length;
  __device__ Positions(const Problem& p, const Sequence& s) : key_length(static_cast<int>(s.key_length)) {
    first = p.window_left < 0 ? -kFlashMaxLength : static_cast<int>(max_of(s.delta - p.window_left, -kFlashMaxLength));
    last =
        p.window_right < 0 ? kFlashMaxLength : static_cast<int>(min_of(s.delta + p.window_right + 1, kFlashMaxLength));
  }
  __device__ int begin(int query) const { return min(max(query + first, 0), key_length); }
  __device__ int end(int query) const { return max(min(query + last, key_length), 0); }
};

// The query and the head of each of a lane's two rows.
struct LaneRows {
  int query[2];
  int64_t head[2];
};

template <int kTiles>
__device__ inline void mask_positions(const Positions& positions, const LaneRows& rows, int first_key, int lane,
                                      float (&score)[kTiles][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = positions.begin(rows.query[half]) - first_key - lane % 4 * 2;
    const int last = positions.end(rows.query[half]) - first_key - lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int key = 8 * n + i;
        if (key < first || key >= last) score[n][2 * half + i] = -INFINITY;
      }
    }
  }
}

// Shrinks [first, end) to the keys from the first to the last that padding, and a dense mask that is the same for every
// query, leave: whole tiles of padding are not looked at. False if that is all that these masks do: padding at the end.
// All threads of the block call it.
template <int kThreads>
__device__ inline bool trim_keys(const Problem& p, int64_t b, int64_t head, int& first, int& end) {
  const Tensor &padding = p.key_padding, &dense = p.dense_mask;
  const bool same_for_all = given(dense) && dense.strides[2] == 0;
  if (!given(padding) && !same_for_all) return true;
  const int64_t padding_row = b * padding.strides[0], dense_row = b * dense.strides[0] + head * dense.strides[1];
  int lowest = INT_MAX, highest = -1, kept = 0;
#pragma unroll 4
  for (int key = first + static_cast<int>(threadIdx.x); key < end; key += kThreads) {
    bool keep = true;
    if (given(padding)) keep = attends(padding, padding_row + key * padding.strides[1]);
    if (same_for_all) keep = keep && attends(dense, dense_row + key * dense.strides[3]);
    if (keep) {
      lowest = min(lowest, key);
      highest = key;
      ++kept;
    }
  }
  __shared__ int bounds[3];
  if (threadIdx.x == 0) {
    bounds[0] = INT_MAX;
    bounds[1] = -1;
    bounds[2] = 0;
  }
  __syncthreads();
  lowest = __reduce_min_sync(0xFFFFFFFFu, lowest);
  highest = __reduce_max_sync(0xFFFFFFFFu, highest);
  kept = __reduce_add_sync(0xFFFFFFFFu, kept);
  if (threadIdx.x % 32 == 0) {
    atomicMin(&bounds[0], lowest);
    atomicMax(&bounds[1], highest);
    atomicAdd(&bounds[2], kept);
  }
  __syncthreads();
  if (bounds[2] == 0) {
    first = end = 0;
    return false;
  }
  const int before = first;
  first = bounds[0];
  end = bounds[1] + 1;
  const bool all_considered = !given(dense) || same_for_all;
  return !(all_considered && first == before && bounds[2] == end - first);
}

// A tile of key padding: one byte per key, the lane's two at `at`.
template <int kTiles>
__device__ inline void hide_padding(uint32_t at, float (&score)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const uint32_t keep = ptx::load_shared_2(at + 8 * n);
    if ((keep & 0xFF) == 0) score[n][0] = score[n][2] = -INFINITY;
    if ((keep >> 8) == 0) score[n][1] = score[n][3] = -INFINITY;
  }
}

// Key padding, and a dense mask that is the same for every query, looked up in global memory: where trim_keys left no
// holes this is not called.
template <int kTiles>
__device__ inline void hide_keys(const Problem& p, int64_t b, int64_t head, int first_key, int end_key, int lane,
                                 float (&score)[kTiles][4]) {
  const Tensor &padding = p.key_padding, &dense = p.dense_mask;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int key = first_key + 8 * n + lane % 4 * 2 + i;
      bool keep = key < end_key;
      if (keep && given(padding)) keep = attends(padding, b * padding.strides[0] + key * padding.strides[1]);
      if (keep && given(dense))
        keep = attends(dense, b * dense.strides[0] + head * dense.strides[1] + key * dense.strides[3]);
      if (!keep) score[n][i] = score[n][2 + i] = -INFINITY;
    }
  }
}

// A tile of a dense mask: one byte per score, rows `pitch` bytes apart.
template <int kTiles>
__device__ inline void hide_masked(uint32_t at, uint32_t pitch, float (&score)[kTiles][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint32_t keep = ptx::load_shared_2(at + half * 8 * pitch + 8 * n);
      if ((keep & 0xFF) == 0) score[n][2 * half] = -INFINITY;
      if ((keep >> 8) == 0) score[n][2 * half + 1] = -INFINITY;
    }
  }
}

// The score of a product and a bias. A score that a mask has hidden stays hidden; an additive -inf hides, whatever the
// key holds; finite values stay finite. All of that shows in a sum that is not finite.
__device__ inline float biased(float product, float scale, float bias) {
  const float shifted = fmaf(product, scale, bias);
  if (fabsf(shifted) < INFINITY) return shifted;
  if (product == -INFINITY || bias == -INFINITY) return -INFINITY;
  const bool overflow = isfinite(product * scale) && isfinite(bias);
  return overflow ? copysignf(FLT_MAX, shifted) : shifted;
}

template <int kTiles>
__device__ inline void add_bias(uint32_t at, uint32_t pitch, int32_t dtype, float scale, float (&score)[kTiles][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint32_t row = at + half * 8 * pitch;
      float2 bias;
      if (dtype == ATTNMUX_FP32) {
        bias = ptx::load_shared_float2(row + 32 * n);
      } else {
        const uint32_t bits = ptx::load_shared_4(row + 16 * n);
        if (dtype == ATTNMUX_BF16) {
          bias = make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xFFFF0000u));
        } else {
          bias = __half22float2(*reinterpret_cast<const __half2*>(&bits));
        }
      }
      score[n][2 * half] = biased(score[n][2 * half], scale, bias.x);
      score[n][2 * half + 1] = biased(score[n][2 * half + 1], scale, bias.y);
    }
  }
}

// From products to scores: scale, softcap, bias, key padding and dense mask. Keys and queries outside of the sequence
// are not looked up.
template <int kTiles>
__device__ inline void shape_scores(const FlashSm80Call& call, int queries, int key_length, int64_t b,
                                    const LaneRows& rows, int first_key, int lane, float (&score)[kTiles][4]) {
  const Problem& p = call.p;
  auto scale = static_cast<float>(p.scale);
  const auto softcap = static_cast<float>(p.softcap);
  if (softcap > 0) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) score[n][i] = softcap * tanhf(score[n][i] * scale / softcap);
    }
    scale = 1;
  }
  if (given(p.bias)) {
    const Tensor& t = p.bias;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = rows.query[i / 2], key = first_key + 8 * n + lane % 4 * 2 + i % 2;
        if (row >= queries || key >= key_length) continue;
        const int64_t base = b * t.strides[0] + rows.head[i / 2] * t.strides[1];
        score[n][i] = biased(score[n][i], scale, load_bias(t, base + row * t.strides[2] + key * t.strides[3]));
      }
    }
  } else if (call.natural != 0 && scale != 1) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) score[n][i] *= scale;
    }
  }
  for (const Tensor* mask : {&p.key_padding, &p.dense_mask}) {
    if (!given(*mask)) continue;
    const bool dense = mask == &p.dense_mask;
    const int64_t head_stride = dense ? mask->strides[1] : 0, row_stride = dense ? mask->strides[2] : 0,
                  key_stride = mask->strides[dense ? 3 : 1];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = rows.query[i / 2], key = first_key + 8 * n + lane % 4 * 2 + i % 2;
        if (row >= queries || key >= key_length) continue;
        const int64_t base = b * mask->strides[0] + rows.head[i / 2] * head_stride;
        if (!attends(*mask, base + row * row_stride + key * key_stride)) score[n][i] = -INFINITY;
      }
    }
  }
}

// Zeroes what dropout drops; the sums have been taken.
template <int kTiles>
__device__ inline void drop(const FlashSm80Call& call, int64_t b, const LaneRows& rows, int first_key, int lane,
                            float (&score)[kTiles][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      // The lane's two keys are the first or the last two of a block of four.
      const Philox words =
          dropout_words(call.p, b, rows.head[half], rows.query[half], (first_key + 8 * n + lane % 4 * 2) / 4);
      const bool late = lane % 2 != 0;
      const uint32_t left = late ? words.word[2] : words.word[0], right = late ? words.word[3] : words.word[1];
      float& a = half == 0 ? score[n][0] : score[n][2];
      float& z = half == 0 ? score[n][1] : score[n][3];
      if (left >> 8 < call.threshold) a = 0;
      if (right >> 8 < call.threshold) z = 0;
    }
  }
}

}  // namespace
}  // namespace attnmux
