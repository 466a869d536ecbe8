// SPDX-License-Identifier: Apache-2.0
// cuda_flash_sm80: FlashAttention-2 (Dao, 2023) on mma.sync and cp.async, for every GPU from Ampere on.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

extern const Kernel kCudaFlashSm80;

/// Queries and keys of a sequence are counted in 32 bits inside the kernel.
inline constexpr int64_t kFlashMaxLength = int64_t{1} << 30;

/// One launch: the problem and what the host derives from it.
struct FlashSm80Call {
  Problem p;
  int64_t q_tiles;      // per head
  float scale_log2;     // scale·log2(e)
  float kept;           // 1 / (1 - dropout_p)
  uint32_t threshold;   // of dropout; 0: off
  int32_t aligned_in;   // q, k and v can be read 16 bytes at a time
  int32_t aligned_out;  // out can be written 4 bytes at a time
};

/// Launches the instance for dtype T (the files sm80_*.cu) and this tile of head_dim: 64, 128 or 256. `general` is the
/// instance with every feature and any head_dim up to the tile; the other takes masks by position only and the whole
/// head_dim. Return values are cudaError_t.
int launch_flash_sm80_bf16(FlashSm80Call& call, int tile_dim, bool general, void* stream);
int launch_flash_sm80_fp16(FlashSm80Call& call, int tile_dim, bool general, void* stream);

}  // namespace attnmux
