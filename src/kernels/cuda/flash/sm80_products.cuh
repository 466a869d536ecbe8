// SPDX-License-Identifier: Apache-2.0
// The two products of a tile: S = Q·Kᵀ and O += P·V. A warp has kRowTiles tiles of 16 rows, 16·kWarps rows apart.
#pragma once

#include "kernels/cuda/flash/sm80_tile.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace attnmux {
namespace {

inline constexpr int kFlashWarps = 4;

// kAnyDim: `dim` says how many columns of the tiles count; else all do.
template <typename T, int kDim, int kM, int kN, int kRowTiles, bool kAnyDim>
__device__ inline void multiply_scores(const LaneAddress<kM>& queries_at, const LaneAddress<kN>& keys_at,
                                       uint32_t stage, int dim, float (&score)[kRowTiles][kN / 8][4]) {
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    if (kAnyDim && step * 16 >= dim) break;
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) ptx::ldmatrix_x4(a[r], queries_at.fragment(0, r * kFlashWarps * 16, step));
#pragma unroll
    for (int n = 0; n < kN / 16; ++n) {
      uint32_t right[4];
      ptx::ldmatrix_x4(right, keys_at.fragment(stage, n * 16, step));
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        ptx::mma_m16n8k16<T>(score[r][2 * n], a[r], right[0], right[1]);
        ptx::mma_m16n8k16<T>(score[r][2 * n + 1], a[r], right[2], right[3]);
      }
    }
  }
}

// P is what softmax left in `score`.
template <typename T, int kDim, int kN, int kRowTiles, bool kAnyDim>
__device__ inline void multiply_values(const LaneAddress<kN>& values_at, uint32_t stage, int dim,
                                       const float (&score)[kRowTiles][kN / 8][4],
                                       float (&out)[kRowTiles][kDim / 8][4]) {
#pragma unroll
  for (int step = 0; step < kN / 16; ++step) {
    // The layout of a product's result is that of a left factor: P needs no shuffle.
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const float(&left)[4] = score[r][2 * step];
      const float(&right)[4] = score[r][2 * step + 1];
      a[r][0] = ptx::pack<T>(left[0], left[1]);
      a[r][1] = ptx::pack<T>(left[2], left[3]);
      a[r][2] = ptx::pack<T>(right[0], right[1]);
      a[r][3] = ptx::pack<T>(right[2], right[3]);
    }
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      if (kAnyDim && n * 16 >= dim) break;
      uint32_t right[4];
      ptx::ldmatrix_x4_transposed(right, values_at.fragment(stage, step * 16, n));
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        ptx::mma_m16n8k16<T>(out[r][2 * n], a[r], right[0], right[1]);
        ptx::mma_m16n8k16<T>(out[r][2 * n + 1], a[r], right[2], right[3]);
      }
    }
  }
}

}  // namespace
}  // namespace attnmux
