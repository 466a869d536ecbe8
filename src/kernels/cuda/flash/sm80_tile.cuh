// SPDX-License-Identifier: Apache-2.0
// Tiles in shared memory: sizes, copies and addresses.
//
// A tile of R rows and 64·n columns of 16-bit elements is n pages of R rows of 128 bytes. The eight pieces of 16 bytes
// in a row are permuted by the row (piece ^ row % 8), so that the eight rows of an 8×8 matrix lie in different banks.
#pragma once

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/kernel.h"

namespace attnmux {
namespace {

template <int kDim, bool kGeneral>
struct FlashTile {
  static constexpr int kWarps = 4, kThreads = kWarps * 32;
  // Registers of a thread: kM·kDim/128 for the output, kM·kN/128 for scores. The general instance needs some for masks.
  static constexpr int kM = kGeneral || kDim == 256 ? 64 : 128;
  static constexpr int kN = kGeneral && kDim != 64 ? 32 : 64;
  static constexpr int kRowTiles = kM / (16 * kWarps);  // of 16 rows, per warp
  static constexpr size_t kQBytes = size_t{kM} * kDim * 2, kKvBytes = size_t{kN} * kDim * 2;
  static constexpr size_t kSharedBytes = kQBytes + 2 * kKvBytes;
};

template <int kRows>
__device__ inline uint32_t piece_address(uint32_t tile, int row, int piece) {
  return tile + static_cast<uint32_t>(piece / 8 * (kRows * 128) + row * 128 + (piece % 8 ^ row % 8) * 16);
}

// Where a lane finds its rows of 8×8 matrices in a tile. All rows that it ever reads are equal modulo 8, so the address
// of a fragment is a constant beside one of four sums: what varies with the lane is a row and a permutation.
template <int kRows>
struct LaneAddress {
  uint32_t row;   // of the tile's first page
  uint32_t swap;  // 16·(piece ^ row % 8) for piece 0 or 1
  __device__ LaneAddress(uint32_t tile, int lane_row, int piece)
      : row(tile + static_cast<uint32_t>(lane_row * 128)), swap(static_cast<uint32_t>((piece ^ lane_row % 8) * 16)) {}
  // Columns [16·step, 16·step + 16) of the 16 rows that begin `rows` further.
  __device__ uint32_t fragment(int rows, int step) const {
    return row + (static_cast<uint32_t>(step % 4 * 32) ^ swap) +
           static_cast<uint32_t>(step / 4 * (kRows * 128) + rows * 128);
  }
};

// Left factor.
template <int kRows>
__device__ inline LaneAddress<kRows> left_factor(uint32_t tile, int first_row, int lane) {
  return {tile, first_row + lane % 16, lane / 16};
}
// Right factor of Q·Kᵀ: two column tiles of the product.
template <int kRows>
__device__ inline LaneAddress<kRows> right_factor(uint32_t tile, int lane) {
  return {tile, lane % 8 + lane / 16 * 8, lane / 8 % 2};
}
// Right factor of P·V, whose matrices are transposed on the way.
template <int kRows>
__device__ inline LaneAddress<kRows> right_factor_transposed(uint32_t tile, int lane) {
  return {tile, lane % 16, lane / 16};
}

// Copies rows [first, first + kRows) of a head into a tile; rows outside of [begin, end), rows that `padding` hides and
// columns from `dim` to the next multiple of 16 become zero and are not read.
template <typename T, int kDim, int kRows, bool kGeneral>
__device__ inline void load_tile(uint32_t tile, const T* head, int64_t stride, int first, int begin, int end, int dim,
                                 bool aligned, const uint8_t* padding, int64_t padding_stride) {
  constexpr int kPieces = kDim / 8, kThreads = 128, kStep = kThreads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
  const int row0 = static_cast<int>(threadIdx.x) / kPieces;
  if (kGeneral && piece * 8 >= (dim + 15) / 16 * 16) return;
  const bool column = !kGeneral || piece * 8 < dim;
  const T* from = head + (first + row0) * stride + piece * 8;
#pragma unroll
  for (int i = 0; i < kRows / kStep; ++i) {
    const int row = row0 + i * kStep, at = first + row;
    bool read = column && at >= begin && at < end;
    if (kGeneral && padding != nullptr && read) read = padding[at * padding_stride] != 0;
    const uint32_t to = piece_address<kRows>(tile, row, piece);
    if (!kGeneral || aligned) {
      ptx::cp_async_16(to, read ? from : head, read);
    } else {
      uint32_t word[4] = {};
      if (read) {
        const auto* bits = reinterpret_cast<const uint16_t*>(from);
#pragma unroll
        for (int x = 0; x < 4; ++x) word[x] = bits[2 * x] | static_cast<uint32_t>(bits[2 * x + 1]) << 16;
      }
      ptx::store_shared_16(to, word);
    }
    from += kStep * stride;
  }
}

}  // namespace
}  // namespace attnmux
