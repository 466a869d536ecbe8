// SPDX-License-Identifier: Apache-2.0
// cuda_flash_sm90: FlashAttention-3 (Shah et al., 2024) on wgmma and the tensor memory accelerator, for Hopper.
#pragma once

#include "kernels/cuda/flash/sm90_tiles.h"
#include "kernels/cuda/runtime/tensor_map.h"
#include "kernels/kernel.h"

namespace attnmux {

extern const Kernel kCudaFlashSm90;

/// Queries and keys of a sequence are counted in 32 bits inside the kernel.
inline constexpr int64_t kFlashSm90MaxLength = int64_t{1} << 30;

/// How the places of the list of tiles are shared out: whole ones in rounds, a place for each block; then, where
/// `share` is not 0, the steps of those that are left, `share` for each block, so that blocks do not wait for the last
/// round.
struct FlashSm90Shares {
  int32_t rounds;
  int32_t steps;  // of a tile
  int32_t share;
};

/// One launch: the problem and what the host derives from it.
struct FlashSm90Call {
  TensorMap q_map, k_map, v_map;
  Problem p;
  FlashSm90Features features;
  float scale_log2;  // scale·log2(e), or log2(e) where scores are finished before softmax (kAll)
  int32_t q_tiles;   // of queries, per head; a cluster's count as one
  int32_t items;     // heads of all batch entries
  int32_t section;   // so many heads take turns where tiles differ in length; in the last section, and those left
  int32_t sections;
  FlashSm90Shares shares;
  int32_t* arrivals;  // how many pieces of a tile are done; before the partial results in the workspace
  float* partials;
  int32_t* attended;        // where padding is given: first and end key of each batch entry, in the workspace
  int32_t multiprocessors;  // of the problem's device
  int64_t l2_bytes;
  int32_t aligned_out;  // out can be written 16 bytes at a time
};

/// Counters of a launch; zero when it starts.
inline constexpr int64_t kFlashSm90ArrivalBytes = 8192;

/// Launches an instance for this dtype and tiles of head dims up to this (the files sm90_*.cu), after it has made the
/// tensor maps.
attnmux_code launch_flash_sm90_64_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_128_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_192_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_256_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_64_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_128_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_192_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_flash_sm90_256_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);

}  // namespace attnmux
