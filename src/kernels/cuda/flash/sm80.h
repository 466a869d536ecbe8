// SPDX-License-Identifier: Apache-2.0
// cuda_flash_sm80: FlashAttention-2 (Dao, 2023) on mma.sync and cp.async, for every GPU from Ampere on.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

extern const Kernel kCudaFlashSm80;

/// Queries and keys of a sequence are counted in 32 bits inside the kernel.
inline constexpr int64_t kFlashMaxLength = int64_t{1} << 30;

/// What an instance of the kernel can do.
enum class FlashFeatures {
  kPositions,    // causal, window and lengths; aligned rows, a scale above 0
  kKeys,         // and key padding, and a dense mask that is the same for every query
  kMasks,        // and any dense mask, and a bias, both with aligned rows
  kAll,          // everything, with any alignment
  kSmallBlocks,  // as kPositions, for calls that flash_takes_small_blocks (sm80_tuning.h) names
};

/// One launch: the problem and what the host derives from it.
struct FlashSm80Call {
  Problem p;
  int64_t q_tiles;     // per head
  float scale_log2;    // scale·log2(e)
  float kept;          // 1 / (1 - dropout_p)
  int32_t lazy;        // flash_is_lazy of the head_dim (sm80_tuning.h)
  int32_t natural;     // scores are finished before softmax (bias, softcap, unusual scales); 0: softmax scales products
  uint32_t threshold;  // of dropout; 0: off
  int32_t shared_limit;  // bytes that a block can have on the problem's device, as its dynamic shared memory
  int32_t aligned_in;    // q, k and v can be read 16 bytes at a time
  int32_t aligned_out;   // bytes that out can be written at a time: 16, 4, or 0 for one element
};

/// Launches an instance for this dtype (the files sm80_*.cu). The results are cudaError_t.
int launch_flash_sm80_bf16(FlashSm80Call& call, FlashFeatures features, void* stream);
int launch_flash_sm80_fp16(FlashSm80Call& call, FlashFeatures features, void* stream);

}  // namespace attnmux
