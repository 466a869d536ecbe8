// SPDX-License-Identifier: Apache-2.0
// The one micro-kernel, of both products:
//
//   S^T[n, q] = sum over d   K[n, d] (broadcast) · Q^T[d, q] (a vector of queries)
//   O^T[d, q] = sum over n   V[n, d] (broadcast) · P^T[n, q]
//
// With queries in the lanes the softmax needs no horizontal reduction, and head_dim need not be a multiple of anything.
#pragma once

#include "kernels/cpu/flash/layout.h"
#include "kernels/cpu/flash/vector-inl.h"

namespace attnmux {
namespace {

enum class Start {
  kZero,    // result = product
  kFactor,  // result = factor · result + product, a factor per query
  kAdd,     // result = result + product (whole tiles only)
};

// kTiles tiles of broadcast units, tile_stride floats apart, times kVectors vectors of queries. lanes and result have
// kBlocking.rows numbers in a row; the result has kTile rows per tile.
template <class Product, Start kStart, int kTiles, int kVectors>
inline void multiply_tiles(const float* tiles, int64_t tile_stride, const float* lanes, int64_t units,
                           const float* factor, float* result) {
  constexpr int kSums = kTiles * kTile;
  F sum[kSums][kVectors];
  ATTNMUX_UNROLL(4)
  for (int j = 0; j < kVectors; ++j) {
    const F scale = kStart == Start::kFactor ? load(factor + j * kLanes) : zero();
    ATTNMUX_UNROLL(16)
    for (int i = 0; i < kSums; ++i) {
      sum[i][j] = kStart == Start::kFactor ? scale * load(result + i * kBlocking.rows + j * kLanes) : zero();
    }
  }
  for (int64_t u = 0; u < units; ++u) {
    F row[kVectors];
    ATTNMUX_UNROLL(4)
    for (int j = 0; j < kVectors; ++j) row[j] = load(lanes + u * kBlocking.rows + j * kLanes);
    ATTNMUX_UNROLL(16)
    for (int i = 0; i < kSums; ++i) {
      const F unit = broadcast(tiles[i / kTile * tile_stride + u * kTile + i % kTile]);
      ATTNMUX_UNROLL(4)
      for (int j = 0; j < kVectors; ++j) sum[i][j] = Product::madd(unit, row[j], sum[i][j]);
    }
  }
  ATTNMUX_UNROLL(16)
  for (int i = 0; i < kSums; ++i) {
    ATTNMUX_UNROLL(4)
    for (int j = 0; j < kVectors; ++j) store(result + i * kBlocking.rows + j * kLanes, sum[i][j]);
  }
}

// Few queries take more tiles at a time, so that the sums still hide the latency.
template <int kVectors>
constexpr int kTilesAtOnce = kAccumulators / (kTile * kVectors) > 1 ? kAccumulators / (kTile * kVectors) : 1;

template <class Product, Start kStart, int kVectors, class Meanwhile>
inline void multiply_group(const float* tiles, int64_t tile_stride, int64_t num_tiles, const float* lanes,
                           int64_t units, const float* factor, float* result, Meanwhile& meanwhile) {
  constexpr int kStep = kTilesAtOnce<kVectors>;
  int64_t t = 0;
  for (; t + kStep <= num_tiles; t += kStep) {
    multiply_tiles<Product, kStart, kStep, kVectors>(tiles + t * tile_stride, tile_stride, lanes, units, factor,
                                                     result + t * kTile * kBlocking.rows);
    meanwhile(t + kStep, num_tiles);
  }
  for (; t < num_tiles; ++t) {
    multiply_tiles<Product, kStart, 1, kVectors>(tiles + t * tile_stride, tile_stride, lanes, units, factor,
                                                 result + t * kTile * kBlocking.rows);
  }
}

// All tiles times `vectors` vectors of queries. After some tiles, meanwhile(done, num_tiles) may fetch what comes next.
template <class Product, Start kStart, class Meanwhile>
void multiply(const float* tiles, int64_t tile_stride, int64_t num_tiles, const float* lanes, int64_t units,
              int64_t vectors, const float* factor, float* result, Meanwhile& meanwhile) {
  int64_t done = 0;
  if (vectors > kGroup) {
    // Several groups: they take turns on a tile while it is in the first-level cache. Where their queries do not fit
    // there together, those of one group stay instead, and the tiles, which are smaller, come again for the next.
    done = vectors / kGroup * kGroup;
    const bool together = units * kBlocking.rows * 4 <= kFirstLevelCache;
    const int64_t most = together ? done : kGroup;
    for (int64_t first = 0; first < done; first += most) {
      for (int64_t t = 0; t < num_tiles; ++t) {
        for (int64_t v = first; v < first + most; v += kGroup) {
          const int64_t column = v * kLanes;
          multiply_tiles<Product, kStart, 1, kGroup>(tiles + t * tile_stride, tile_stride, lanes + column, units,
                                                     factor + column, result + t * kTile * kBlocking.rows + column);
        }
        meanwhile(t + 1, num_tiles);
      }
    }
  }
  const int64_t column = done * kLanes;
  const auto group = [&]<int kVectors>() {
    if constexpr (kVectors <= kGroup) {
      multiply_group<Product, kStart, kVectors>(tiles, tile_stride, num_tiles, lanes + column, units, factor + column,
                                                result + column, meanwhile);
    }
  };
  switch (vectors - done) {
    case 1:
      return group.template operator()<1>();
    case 2:
      return group.template operator()<2>();
    case 3:
      return group.template operator()<3>();
    case 4:
      return group.template operator()<4>();
    default:
      return;
  }
}

}  // namespace
}  // namespace attnmux
