// SPDX-License-Identifier: Apache-2.0
// Masks as bits, one word or two for each row of a lane: a bit for each of its scores, in their order.
#pragma once

#include "kernels/cuda/flash/sm90_stream.h"

namespace attnmux {
namespace {

template <int kKeys>
struct Sm90StepBits {
  static constexpr int kWords = (kKeys + 127) / 128;
  uint32_t word[2][kWords];
  bool masked;  // some bit is 0; else they are not fetched

  // Before the wait for the products that they apply to, which hides the latency.
  __device__ void fetch(const FlashSm90Keys& keys, const uint32_t* tile, int step, int row) {
    if (!masked) return;
    const int lane_words = 4 * kWords, rows = keys.rows;
    const uint32_t* from =
        tile + (int64_t{step} * rows + (rows > 1 ? row : 0)) * lane_words + static_cast<int>(threadIdx.x) % 4 * kWords;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kWords; ++i) word[half][i] = from[(rows > 1 ? half * 8 * lane_words : 0) + i];
    }
  }

  template <int kCount>
  __device__ void mask(float (&score)[kCount]) const {
    if (!masked) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kCount / 2; ++i) {
        if ((word[half][i / 32] >> (i % 32) & 1) == 0) score[i / 2 * 4 + 2 * half + i % 2] = -INFINITY;
      }
    }
  }
};

}  // namespace
}  // namespace attnmux
