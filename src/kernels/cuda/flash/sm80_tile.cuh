// SPDX-License-Identifier: Apache-2.0
// Tiles in shared memory: sizes, copies and addresses.
//
// A tile of R rows and 64·n columns of 16-bit elements is n pages of R rows of 128 bytes. The eight pieces of 16 bytes
// in a row are permuted by the row (piece ^ row % 8), so that the eight rows of an 8×8 matrix lie in different banks.
#pragma once

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/flash/sm80.h"
#include "kernels/cuda/flash/sm80_tuning.h"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/kernel.h"

namespace attnmux {
namespace {

template <int kDim, FlashFeatures kFeatures>
struct FlashTile {
  static constexpr bool kGeneral = kFeatures == FlashFeatures::kAll, kMasks = kFeatures == FlashFeatures::kMasks,
                        kKeys = kFeatures == FlashFeatures::kKeys;
  static constexpr FlashTuning kTuning = flash_tuning(kDim, kFeatures);
  static constexpr int kWarps = 4, kThreads = kWarps * 32;
  // Registers of a thread: kM·kDim/128 for the output, kM·kN/128 for scores. The general instance needs some for masks.
  static constexpr int kM = kTuning.rows;
  static constexpr int kN = 64;  // of every instance: a row sums in one order, whatever the call asks for
  static constexpr int kRowTiles = kM / (16 * kWarps);  // of 16 rows, per warp
  static constexpr int kStages = kTuning.stages;
  static constexpr bool kLazy = flash_is_lazy(kDim), kSideBySide = kTuning.side_by_side && kRowTiles > 1,
                        kStagedOut = kTuning.staged_out;
  static constexpr int kPages = (kDim + 63) / 64;
  static constexpr uint32_t kQBytes = kM * kPages * 128, kKvBytes = kN * kPages * 128;
  static constexpr uint32_t kStageBytes = 2 * kKvBytes;
  static constexpr size_t kSharedBytes = kQBytes + kStages * kStageBytes;
  // Rows of a mask or bias tile lie apart so far that the eight rows that a warp reads at once hit different banks.
  static constexpr uint32_t kPaddingBytes = kN, kMaskPitch = kN + 16, kMaskBytes = kM * kMaskPitch;
  ATTNMUX_DEVICE static constexpr uint32_t bias_pitch(uint32_t element_bytes) {
    return kN * element_bytes + element_bytes * 8;
  }
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
  // Columns [16·step, 16·step + 16) of the 16 rows that begin `rows` further, `stage` bytes behind the tile.
  __device__ uint32_t fragment(uint32_t stage, int rows, int step) const {
    return row + stage + (static_cast<uint32_t>(step % 4 * 32) ^ swap) +
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

// Copies eight elements of 16 bits, element by element; null gives zeros.
__device__ inline void copy_unaligned(uint32_t to, const void* from) {
  uint32_t word[4] = {};
  if (from != nullptr) {
    const auto* bits = static_cast<const uint16_t*>(from);
#pragma unroll
    for (int x = 0; x < 4; ++x) word[x] = bits[2 * x] | static_cast<uint32_t>(bits[2 * x + 1]) << 16;
  }
  ptx::store_shared_16(to, word);
}

// Copies rows [first, first + kRows) of a head into a tile; rows outside of [begin, end), rows that `padding` hides and
// columns from `dim` on become zero and are not read: kAnyDim, to the next multiple of 16, else to kDim.
template <typename T, int kDim, int kRows, int kThreads, bool kAnyDim, bool kAnyAlignment = kAnyDim,
          int kUnroll = kRows>
__device__ inline void load_tile(uint32_t tile, const T* head, int64_t stride, int first, int begin, int end, int dim,
                                 bool aligned, const uint8_t* padding, int64_t padding_stride) {
  constexpr int kPieces = kDim <= 32    ? 4
                          : kDim <= 64  ? 8
                          : kDim <= 128 ? 16
                          : kDim <= 256 ? 32
                                        : 64;  // and some threads idle
  constexpr int kStep = kThreads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
  const int row0 = static_cast<int>(threadIdx.x) / kPieces;
  if (kAnyDim ? piece * 8 >= (dim + 15) / 16 * 16 : piece * 8 >= kDim) return;
  const bool column = piece * 8 < dim;
  const T* from = head + (first + row0) * stride + piece * 8;
#pragma unroll kUnroll
  for (int i = 0; i < kRows / kStep; ++i) {
    const int row = row0 + i * kStep, at = first + row;
    bool read = column && at >= begin && at < end;
    if (padding != nullptr && read) read = padding[at * padding_stride] != 0;
    const uint32_t to = piece_address<kRows>(tile, row, piece);
    if (!kAnyAlignment || aligned) {
      ptx::cp_async_16(to, read ? from : head, read ? 16 : 0);
    } else {
      copy_unaligned(to, read ? from : nullptr);
    }
    from += kStep * stride;
  }
}

// Copies rows [0, rows) and columns [0, columns) of a mask or bias, from `from` on, into a tile of kRows rows of kBytes
// bytes; what lies outside becomes zero.
template <int kRows, int kBytes, int kThreads>
__device__ inline void load_score_tile(uint32_t tile, uint32_t pitch, const unsigned char* from, int64_t stride_bytes,
                                       int rows, int column_bytes) {
  constexpr int kPieces = kBytes / 16, kStep = kThreads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces, row0 = static_cast<int>(threadIdx.x) / kPieces;
  const int bytes = max(min(column_bytes - piece * 16, 16), 0);
#pragma unroll 4
  for (int i = 0; i < kRows / kStep; ++i) {
    const int row = row0 + i * kStep;
    const int count = row < rows ? bytes : 0;
    ptx::cp_async_16(tile + row * pitch + piece * 16, count > 0 ? from + row * stride_bytes + piece * 16 : from, count);
  }
}

}  // namespace
}  // namespace attnmux
