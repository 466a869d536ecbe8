// SPDX-License-Identifier: Apache-2.0
// The two products of a tile of keys, each as products of halves (efficient_split.cuh).
#pragma once

#include "kernels/cuda/efficient/efficient_tile.cuh"
#include "kernels/cuda/flash/sm80_scores.cuh"

namespace attnmux {
namespace {

// A sum of products of two column tiles (of 8) by kRowTiles row tiles.
template <int kRowTiles>
struct SplitSum {
  static constexpr int kChain = 2;  // products of big·big that the tensor cores add up
  float total[kRowTiles][2][4] = {}, part[kRowTiles][2][4] = {}, small[kRowTiles][2][4] = {};

  // kLeft, kRight: that factor has small halves. Columns k of the factors are those of step `step`.
  template <bool kLeft, bool kRight>
  __device__ void add(int step, int steps, int r, const uint32_t (&left)[4], const uint32_t (&left_small)[4],
                      const uint32_t (&right)[4], const uint32_t (&right_small)[4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if constexpr (kRight) ptx::mma_m16n8k16<__half>(small[r][i], left, right_small[2 * i], right_small[2 * i + 1]);
      if constexpr (kLeft) ptx::mma_m16n8k16<__half>(small[r][i], left_small, right[2 * i], right[2 * i + 1]);
      ptx::mma_m16n8k16<__half>(part[r][i], left, right[2 * i], right[2 * i + 1]);
      if ((step + 1) % kChain == 0 || step + 1 == steps) {
#pragma unroll
        for (int x = 0; x < 4; ++x) {
          total[r][i][x] = step < kChain ? part[r][i][x] : total[r][i][x] + part[r][i][x];
          part[r][i][x] = 0;
        }
      }
    }
  }

  __device__ float result(int r, int i, int x) const { return total[r][i][x] + small[r][i][x]; }
};

// score = Q·Kᵀ in units of both factors.
template <typename Tile>
__device__ inline void split_scores(const Queries<Tile> (&queries)[Tile::kRowTiles],
                                    const LaneAddress<Tile::kN>& keys_at, uint32_t stage,
                                    float (&score)[Tile::kRowTiles][Tile::kN / 8][4]) {
  constexpr bool kWide = Tile::kWide;
#pragma unroll
  for (int n = 0; n < Tile::kN / 16; ++n) {
    SplitSum<Tile::kRowTiles> sum;
#pragma unroll
    for (int step = 0; step < Tile::kSteps; ++step) {
      uint32_t right[4], right_small[4];
      ptx::ldmatrix_x4(right, keys_at.fragment(stage, n * 16, step));
      if constexpr (kWide) ptx::ldmatrix_x4(right_small, keys_at.fragment(stage + Tile::kSmallAt, n * 16, step));
#pragma unroll
      for (int r = 0; r < Tile::kRowTiles; ++r) {
        uint32_t left[4], left_small[4];
        queries[r].fragment(step, left, left_small);
        sum.template add<kWide, kWide>(step, Tile::kSteps, r, left, left_small, right, right_small);
      }
    }
#pragma unroll
    for (int r = 0; r < Tile::kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int x = 0; x < 4; ++x) score[r][2 * n + i][x] = sum.result(r, i, x);
      }
    }
  }
}

// out = out·rescale + P·V, P being what softmax left in `score`, in units of the rows of V.
template <typename Tile>
__device__ inline void split_values(const LaneAddress<Tile::kN>& values_at, uint32_t stage, int dim,
                                    const float (&score)[Tile::kRowTiles][Tile::kN / 8][4],
                                    const float (&rescale)[Tile::kRowTiles][2],
                                    float (&out)[Tile::kRowTiles][Tile::kDim / 8][4]) {
  constexpr bool kWide = Tile::kWide;
  constexpr int kSteps = Tile::kN / 16;
  uint32_t left[Tile::kRowTiles][kSteps][4], left_small[Tile::kRowTiles][kSteps][4];
#pragma unroll
  for (int r = 0; r < Tile::kRowTiles; ++r) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        // The layout of a product's result is that of a left factor: P needs no shuffle.
        const float(&from)[4] = score[r][2 * step + i / 2];
        const HalfPairs pairs = split_pair(from[i % 2 * 2], from[i % 2 * 2 + 1]);
        left[r][step][i] = pairs.big;
        left_small[r][step][i] = pairs.small;
      }
    }
  }
#pragma unroll
  for (int n = 0; n < Tile::kDim / 16; ++n) {
    if (Tile::kDim > 128 && n * 16 >= dim) break;
    SplitSum<Tile::kRowTiles> sum;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t right[4], right_small[4];
      ptx::ldmatrix_x4_transposed(right, values_at.fragment(stage, step * 16, n));
      if constexpr (kWide)
        ptx::ldmatrix_x4_transposed(right_small, values_at.fragment(stage + Tile::kSmallAt, step * 16, n));
#pragma unroll
      for (int r = 0; r < Tile::kRowTiles; ++r)
        sum.template add<true, kWide>(step, kSteps, r, left[r][step], left_small[r][step], right, right_small);
    }
#pragma unroll
    for (int r = 0; r < Tile::kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int x = 0; x < 4; ++x) {
          float& to = out[r][2 * n + i][x];
          to = fmaf(to, rescale[r][x / 2], sum.result(r, i, x));
        }
      }
    }
  }
}

}  // namespace
}  // namespace attnmux
