// SPDX-License-Identifier: Apache-2.0
// Tiles in shared memory: sizes, copies and addresses.
//
// A tile of R rows and 64·n columns of 16-bit elements is n pages of R rows of 128 bytes. The eight pieces of 16 bytes in
// a row are permuted by the row (piece ^ row % 8), so that the eight rows of an 8×8 matrix lie in different banks.
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
  static constexpr int kN = kGeneral || kDim != 64 ? 64 : 128;
  static constexpr int kRowTiles = kM / (16 * kWarps);  // of 16 rows, per warp
  static constexpr size_t kQBytes = size_t{kM} * kDim * 2, kKvBytes = size_t{kN} * kDim * 2;
  static constexpr size_t kSharedBytes = kQBytes + 2 * kKvBytes;
};

template <int kRows>
__device__ inline uint32_t piece_address(uint32_t tile, int row, int piece) {
  return tile + static_cast<uint32_t>(piece / 8 * (kRows * 128) + row * 128 + (piece % 8 ^ row % 8) * 16);
}

// Left factor: rows [row, row + 16), columns [16·step, 16·step + 16).
template <int kRows>
__device__ inline uint32_t fragment_a(uint32_t tile, int row, int step, int lane) {
  return piece_address<kRows>(tile, row + lane % 16, step * 2 + lane / 16);
}
// Right factor of Q·Kᵀ: keys [key, key + 16), columns [16·step, 16·step + 16); two column tiles of the product.
template <int kRows>
__device__ inline uint32_t fragment_b(uint32_t tile, int key, int step, int lane) {
  return piece_address<kRows>(tile, key + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2);
}
// Right factor of P·V: keys [key, key + 16), columns [16·n, 16·n + 16) of V.
template <int kRows>
__device__ inline uint32_t fragment_b_transposed(uint32_t tile, int key, int n, int lane) {
  return piece_address<kRows>(tile, key + lane % 16, n * 2 + lane / 16);
}

// Copies rows [first, first + kRows) of a head into a tile; rows outside of `rows`, rows that `padding` hides and columns
// from `dim` to the next multiple of 16 become zero and are not read.
template <typename T, int kDim, int kRows, bool kGeneral>
__device__ inline void load_tile(uint32_t tile, const T* head, int64_t stride, int64_t first, KeyRange rows, int dim,
                                 bool aligned, const uint8_t* padding, int64_t padding_stride) {
  constexpr int kPieces = kDim / 8, kThreads = 128, kStep = kThreads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
  const int row0 = static_cast<int>(threadIdx.x) / kPieces;
  if (kGeneral && piece * 8 >= (dim + 15) / 16 * 16) return;
  const bool column = !kGeneral || piece * 8 < dim;
  const T* from = head + (first + row0) * stride + piece * 8;
#pragma unroll
  for (int i = 0; i < kRows / kStep; ++i) {
    const int row = row0 + i * kStep;
    const int64_t at = first + row;
    bool read = column && at >= rows.first && at < rows.last;
    if (kGeneral && padding != nullptr && read) read = padding[at * padding_stride] != 0;
    const uint32_t to = piece_address<kRows>(tile, row, piece);
    const T* source = from + i * kStep * stride;
    if (!kGeneral || aligned) {
      ptx::cp_async_16(to, read ? source : head, read);
    } else {
      uint32_t word[4] = {};
      if (read) {
        const auto* bits = reinterpret_cast<const uint16_t*>(source);
#pragma unroll
        for (int x = 0; x < 4; ++x) word[x] = bits[2 * x] | static_cast<uint32_t>(bits[2 * x + 1]) << 16;
      }
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]),
                   "r"(word[3])
                   : "memory");
    }
  }
}

}  // namespace
}  // namespace attnmux
