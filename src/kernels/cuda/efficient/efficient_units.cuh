// SPDX-License-Identifier: Apache-2.0
// Units of K and V in a tile: what makes scores of products, and probabilities that fit halves together with V.
#pragma once

#include "kernels/cuda/efficient/efficient_split.cuh"
#include "kernels/cuda/flash/sm80_scores.cuh"

namespace attnmux {
namespace {

// Products in units of both factors become products in units of `query` alone.
template <int kTiles>
__device__ inline void apply_key_units(uint32_t units, int lane, float (&score)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const float2 key = ptx::load_shared_float2(units + 32 * n + lane % 4 * 8);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      score[n][2 * half] *= key.x;
      score[n][2 * half + 1] *= key.y;
    }
  }
}

// Both units: key.x·query first, powers of two whose product is one where that of three factors might overflow.
template <int kTiles>
__device__ inline void apply_both_units(uint32_t units, const float (&query)[2], int lane, float (&score)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const float2 key = ptx::load_shared_float2(units + 32 * n + lane % 4 * 8);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      score[n][2 * half] *= key.x * query[half];
      score[n][2 * half + 1] *= key.y * query[half];
    }
  }
}

// The online softmax of products whose rows have scales of their own: `factor` makes base-2 exponents of them.
template <int kTiles>
__device__ inline void scaled_softmax(const float (&factor)[2], float (&score)[kTiles][4], RowState (&state)[2],
                                      float (&rescale)[2]) {
  float largest[2];
  row_maxima<kTiles>(score, largest);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    largest[half] = fmaxf(largest[half], state[half].maximum);
    const float maximum = largest[half] == -INFINITY ? 0 : largest[half];
    rescale[half] = ptx::exp2_approximate((state[half].maximum - maximum) * factor[half]);
    state[half].maximum = largest[half];
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& x = score[n][2 * half + i];
        x = ptx::exp2_approximate((x - maximum) * factor[half]);
        sum += x;
      }
    }
    state[half].sum = fmaf(state[half].sum, rescale[half], sum);
  }
}

// log of the sum of exponentials of such a row. The maximum is taken times ln 2 in two parts, the larger of which has
// so few bits that the sum alone rounds.
__device__ inline float scaled_log_sum_exp(float maximum, float factor, float sum) {
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  const float scaled = __fmul_rn(maximum, factor), left = fmaf(maximum, factor, -scaled);
  return fmaf(scaled, kLn2High, fmaf(scaled, kLn2Low, fmaf(left, kFlashLn2, logf(sum))));
}

// P times 2^kRaise in units of the largest row of V has halves that leave 2^-40 of it. That is enough for rows of V
// that are 2^-kWidestRange as large.
constexpr int kRaise = 15, kWidestRange = 12;

// What the outputs of a warp are counted in: 2^-kRaise times a power of two, which follows V from tile to tile, and
// over which rows may have a power of two of their own. Both fall at once by no more than outputs have room for.
template <int kRowTiles>
struct OutputUnits {
  static constexpr int kLargestFall = 40;
  int unit = kSmallestUnit, fall = 0;  // exponents, as in floats; what the latest tile changed
  uint32_t extra = 0;                  // rows are counted in 2^-extra of the unit; 8 bits of each
  bool wide = false;                   // the latest tile's units lie far apart

  // The next tile, whose units of V lie at `units`.
  template <int kKeys>
  __device__ void advance(uint32_t units, int lane) {
    uint32_t high = 0, low = kLargestUnit;
#pragma unroll
    for (int key = 0; key < kKeys; key += 32) {
      if (kKeys < 32 && lane >= kKeys) continue;
      const uint32_t field = ptx::load_shared_4(units + static_cast<uint32_t>(key + lane) * 4) / kExponentOne;
      high = max(high, field);
      if (field != 0) low = min(low, field);  // else a row of zeros
    }
    const int largest = static_cast<int>(__reduce_max_sync(0xFFFFFFFFu, high));
    const int smallest = static_cast<int>(__reduce_min_sync(0xFFFFFFFFu, low));
    const int next = max(max(largest, unit - kLargestFall), static_cast<int>(kSmallestUnit));
    fall = unit - next;
    unit = next;
    wide = next > smallest + kWidestRange;
  }

  // P becomes P·(unit of the key's V) in units of the row; `rescale` sees to the outputs so far. Where units lie far
  // apart, rows bring their own largest product to the top: the largest unit may be that of a key which they do not
  // attend.
  template <int kTiles>
  __device__ void apply(uint32_t units, int lane, int r, float (&score)[kTiles][4], float (&rescale)[2]) {
    const float reciprocal = power_of_two(static_cast<uint32_t>(254 + kRaise - unit));
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float2 key = ptx::load_shared_float2(units + 32 * n + lane % 4 * 8);
      const float left = key.x * reciprocal, right = key.y * reciprocal;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        score[n][2 * half] *= left;
        score[n][2 * half + 1] *= right;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int more = 0;
      if (wide) {
        float largest = 0;
#pragma unroll
        for (int n = 0; n < kTiles; ++n) largest = fmaxf(largest, fmaxf(score[n][2 * half], score[n][2 * half + 1]));
        const int top = static_cast<int>(exponent_field(quad_max(largest)));
        more = max(min(127 + kRaise - top, kLargestFall), 0);
        const float factor = power_of_two(static_cast<uint32_t>(127 + more));
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          score[n][2 * half] *= factor;
          score[n][2 * half + 1] *= factor;
        }
      }
      rescale[half] *= power_of_two(static_cast<uint32_t>(max(127 + fall + more - extra_of(r, half), 0)));
      const int place = 8 * (2 * r + half);
      extra = (extra & ~(0xFFu << place)) | static_cast<uint32_t>(more) << place;
    }
  }

  __device__ int extra_of(int r, int half) const { return static_cast<int>(extra >> 8 * (2 * r + half) & 0xFF); }

  // What makes an output of a sum.
  __device__ float of_row(int r, int half) const {
    return power_of_two(static_cast<uint32_t>(max(unit - kRaise - extra_of(r, half), 1)));
  }
};

}  // namespace
}  // namespace attnmux
