// SPDX-License-Identifier: Apache-2.0
// The shape of a block of cuda_efficient, its shared memory, and the queries in registers or beside the tiles.
#pragma once

#include "kernels/cuda/efficient/efficient.h"
#include "kernels/cuda/efficient/efficient_split.cuh"
#include "kernels/cuda/flash/sm80_scores.cuh"
#include "kernels/cuda/flash/sm80_tile.cuh"

namespace attnmux {
namespace {

// kWide: elements do not fit one half.
template <int kDim_, bool kWide_, bool kGeneral_>
struct EfficientTile {
  static constexpr int kDim = kDim_;
  static constexpr bool kWide = kWide_, kGeneral = kGeneral_;
  // Registers of a thread: kRowTiles·kDim/2 each for the output and for Q, split; where that is too much, Q lies in
  // shared memory.
  static constexpr bool kQueriesInRegisters = kDim <= 128;
  static constexpr int kRowTiles = kDim <= 64 && !kGeneral ? 2 : 1;  // of 16 rows, per warp
  static constexpr int kWarps = 4, kThreads = kWarps * 32, kM = kRowTiles * kWarps * 16;
  static constexpr int kN = kDim <= 128 ? 32 : 16;
  // One stage where shared memory has no place for two beside the queries.
  static constexpr bool kMayHaveOneStage = !kQueriesInRegisters;
  static constexpr int kSteps = kDim / 16;
  static constexpr int kPages = (kDim + 63) / 64;
  static constexpr uint32_t kPlaneBytes = kN * kPages * 128, kPlanes = kWide ? 2 : 1;
  // Of a stage: K big and small, V big and small, units of K and of V.
  static constexpr uint32_t kSmallAt = kPlaneBytes, kValuesAt = kPlanes * kPlaneBytes, kUnitsAt = 2 * kValuesAt;
  static constexpr uint32_t kStageBytes = kUnitsAt + 1024;  // stages keep their alignment
  static constexpr uint32_t kQueryBytes = kQueriesInRegisters ? 0 : kRowTiles * kWarps * kSteps * kPlanes * 512;
  static constexpr size_t shared_bytes(int stages) { return stages * kStageBytes + kQueryBytes; }
  static_assert(shared_bytes(2) == efficient_shared_bytes(kDim, kWide, 2));
};

// The same value, of which the compiler does not know so: what is computed from it stays inside of a loop, where
// registers for it are short.
__device__ inline uint32_t opaque(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

template <int kRows>
__device__ inline LaneAddress<kRows> opaque(LaneAddress<kRows> at) {
  at.swap = opaque(at.swap);
  return at;
}

// Copies rows [first, first + kRows) of `columns` halves, `pitch` halves apart, into a tile; rows outside of [begin,
// end), rows that `padding` hides and columns from `columns` on become zero and are not read. kWhole: all rows are
// within.
template <typename Tile, bool kWhole>
__device__ inline void copy_plane(uint32_t tile, const __half* from, int pitch, int columns, int first, int begin,
                                  int end, const uint8_t* padding, int64_t padding_stride) {
  constexpr int kPieces = Tile::kDim / 8, kStep = Tile::kThreads / kPieces;
  const int thread = static_cast<int>(opaque(threadIdx.x)), piece = thread % kPieces, row0 = thread / kPieces;
  const bool column = piece * 8 < columns;
  const __half* source = from + (first + row0) * static_cast<int64_t>(pitch) + piece * 8;
#pragma unroll
  for (int i = 0; i < Tile::kN / kStep; ++i) {
    const int row = row0 + i * kStep, at = first + row;
    bool read = column;
    if constexpr (!kWhole) {
      read = read && at >= begin && at < end;
      if (padding != nullptr && read) read = padding[at * padding_stride] != 0;
    }
    ptx::cp_async_16(piece_address<Tile::kN>(tile, row, piece), read ? source : from, read ? 16 : 0);
    source += kStep * pitch;
  }
}

// Fragments of Q of one row tile: all of them, as fragments of the left factor, in registers or in shared memory, where
// only the lane that wrote a word reads it.
template <typename Tile>
struct Queries {
  static constexpr int kSteps = Tile::kSteps;
  static constexpr int kKept = Tile::kQueriesInRegisters ? kSteps : 1;
  uint32_t big[kKept][4], small[Tile::kWide ? kKept : 1][4];
  float unit[2];  // of the rows lane/4 and lane/4 + 8
  uint32_t place;

  // `row[half]` is null for a row outside of the sequence.
  template <typename T>
  __device__ void load(const T* const (&row)[2], int dim, int lane, uint32_t shared) {
    place = shared + static_cast<uint32_t>(lane) * 16;
    float reciprocal[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = 0;
      if (row[half] != nullptr) {
#pragma unroll 4
        for (int column = lane % 4; column < dim; column += 4)
          largest = fmaxf(largest, fabsf(to_float(row[half][column])));
      }
      largest = quad_max(largest);
      unit[half] = largest == 0 ? 1.0f : unit_of(largest);
      reciprocal[half] = reciprocal_of_unit(unit[half]);
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      asm volatile("" ::: "memory");  // elements of all steps at once would not fit registers
      uint32_t left[4], right[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const T* from = row[i % 2];
        const int column = step * 16 + i / 2 * 8 + lane % 4 * 2;
        const float a = from != nullptr && column < dim ? to_float(from[column]) : 0;
        const float b = from != nullptr && column + 1 < dim ? to_float(from[column + 1]) : 0;
        const HalfPairs pairs = split_pair(a * reciprocal[i % 2], b * reciprocal[i % 2]);
        left[i] = pairs.big;
        right[i] = pairs.small;
      }
      if constexpr (Tile::kQueriesInRegisters) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          big[step][i] = left[i];
          if constexpr (Tile::kWide) small[step][i] = right[i];
        }
      } else {
        ptx::store_shared_16(place + static_cast<uint32_t>(step) * 512, left);
        if constexpr (Tile::kWide) ptx::store_shared_16(place + static_cast<uint32_t>(kSteps + step) * 512, right);
      }
    }
  }

  __device__ void fragment(int step, uint32_t (&left)[4], uint32_t (&right)[4]) const {
    if constexpr (Tile::kQueriesInRegisters) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        left[i] = big[step][i];
        if constexpr (Tile::kWide) right[i] = small[step][i];
      }
    } else {
      const uint4 a = ptx::load_shared_16(place + static_cast<uint32_t>(step) * 512);
      left[0] = a.x, left[1] = a.y, left[2] = a.z, left[3] = a.w;
      if constexpr (Tile::kWide) {
        const uint4 b = ptx::load_shared_16(place + static_cast<uint32_t>(kSteps + step) * 512);
        right[0] = b.x, right[1] = b.y, right[2] = b.z, right[3] = b.w;
      }
    }
  }
};

}  // namespace
}  // namespace attnmux
