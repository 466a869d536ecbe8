// SPDX-License-Identifier: Apache-2.0
// cuda_efficient: memory-efficient attention on tensor cores for fp32 as well, and for rows of any length and alignment
// up to 256 columns. fp32 runs as three TF32 products (efficient_split.cuh says what that loses).
#pragma once

#include "kernels/cuda/flash/sm80.h"

namespace attnmux {

extern const Kernel kCudaEfficient;

/// The columns of the instance that serves `dim`: 64, 128 or 256.
constexpr int64_t efficient_columns(int64_t dim) { return dim <= 64 ? 64 : dim <= 128 ? 128 : 256; }

inline constexpr int64_t kEfficientQueries = 64;

/// Keys of a tile: outputs of 256 columns leave registers for the scores of 16.
ATTNMUX_DEVICE constexpr int64_t efficient_keys(int64_t dim) { return dim <= 128 ? 32 : 16; }

/// Rows are 4 floats longer than their columns: rows g and words t of a fragment, 4g + t, then lie in different banks.
constexpr int64_t efficient_shared_bytes(int64_t dim) {
  return (kEfficientQueries + 2 * efficient_keys(dim)) * (efficient_columns(dim) + 4) * 4;
}

/// Launches the instance for this dtype (the files efficient_*.cu). The results are cudaError_t.
int launch_efficient_fp32(FlashSm80Call& call, void* stream);
int launch_efficient_fp16(FlashSm80Call& call, void* stream);
int launch_efficient_bf16(FlashSm80Call& call, void* stream);

}  // namespace attnmux
