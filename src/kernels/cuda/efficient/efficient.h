// SPDX-License-Identifier: Apache-2.0
// cuda_efficient: memory-efficient attention with fp32 products on the 16-bit tensor cores (efficient_split.cuh says
// how and what that loses), for rows of any length up to 256 columns, any strides and any alignment.
//
// K and V are split once per call, into planes of halves in the workspace (efficient_split.cu): as many bytes as fp32
// rows have. The kernel proper then copies halves that are aligned and padded, whatever the tensors are like.
#pragma once

#include "kernels/cuda/flash/sm80.h"

namespace attnmux {

extern const Kernel kCudaEfficient;

/// Widths of the instances: rows are padded with zeros to the next.
inline constexpr int64_t kEfficientWidths[] = {32, 64, 128, 256};
inline constexpr int64_t kEfficientMaxDim = 256;

/// K or V as x = unit·(big + small), (head, row) without gaps. A row has its `columns` big halves, a multiple of 16,
/// behind them the small ones, if elements of the dtype do not fit the big ones, and then the unit, a float: a power of
/// two, or 0 if the row is zero.
struct EfficientPlane {
  void* rows;
  int64_t columns;
};
inline constexpr int64_t kEfficientUnitHalves = 8;  // what a unit takes of a row, whose pieces are 16 bytes

struct EfficientCall {
  FlashSm80Call base;
  EfficientPlane k, v;
  int64_t rows;     // of a head in a plane: the keys of a batch entry, or of all packed sequences
  int64_t batches;  // of the planes: 1 where sequences are packed
  int32_t stages;   // of tiles in shared memory
};

/// Where the planes lie in `workspace`, which may be null; returns the bytes that they need.
size_t efficient_planes(const Problem& problem, void* workspace, EfficientCall& call);

/// Shared memory of a block of the instance that serves this width: tiles of K and V, and of Q in the widest. There one
/// stage does where two have no place.
ATTNMUX_DEVICE constexpr int64_t efficient_shared_bytes(int64_t width, bool wide, int64_t stages) {
  const int64_t planes = wide ? 2 : 1, keys = width <= 128 ? 32 : 16;
  const int64_t stage = 2 * planes * keys * round_up(width, 64) * 2 + 1024;
  return stages * stage + (width <= 128 ? 0 : 64 * width * 2 * planes);
}
constexpr int64_t efficient_least_stages(int64_t width) { return width <= 128 ? 2 : 1; }
constexpr int64_t efficient_width(int64_t dim) {
  for (const int64_t width : kEfficientWidths) {
    if (dim <= width) return width;
  }
  return 0;
}

/// Fill the planes; launch the instance for this dtype (the files efficient_*.cu). The results are cudaError_t.
int launch_efficient_split(const EfficientCall& call, void* stream);
int launch_efficient_fp32(EfficientCall& call, bool general, void* stream);
int launch_efficient_fp16(EfficientCall& call, bool general, void* stream);
int launch_efficient_bf16(EfficientCall& call, bool general, void* stream);

}  // namespace attnmux
