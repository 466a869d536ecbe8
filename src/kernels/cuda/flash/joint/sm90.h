// SPDX-License-Identifier: Apache-2.0
// The kernel of cuda_flash_sm90 whose tiles join: the last product of one runs beside the first of the next, and after
// a tile's first step probabilities are taken by the maxima so far.
#pragma once

#include "kernels/cuda/flash/joint/sm90_tiles.h"
#include "kernels/cuda/flash/sm90_stream.h"
#include "kernels/cuda/runtime/tensor_map.h"
#include "kernels/kernel.h"

namespace attnmux::joint {

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
  float scale_log2;  // scale·log2(e)
  int32_t q_tiles;   // of queries, per head; a cluster's count as one
  int32_t items;     // heads of all batch entries
  int32_t section;   // so many heads take turns where tiles differ in length; in the last section, and those left
  int32_t sections;
  FlashSm90Shares shares;
  int32_t* arrivals;  // how many pieces of a tile are done; before the partial results in the workspace
  float* partials;
  int32_t multiprocessors;  // of the problem's device
  int64_t l2_bytes;
  FlashSm90Keys keys;    // of instances with kKeys
  FlashSm90Queue queue;  // likewise
  int32_t aligned_out;   // out can be written 16 bytes at a time
};

/// Counters of a launch; zero when it starts.
inline constexpr int64_t kFlashSm90ArrivalBytes = 8192;

/// May the kernel take this problem, which cuda_flash_sm90 does? Head dims up to 128, more than a few queries, and no
/// bias or softcap: where it may, it is the faster one.
bool takes(const Problem& problem);
/// Never falls when B, Sq or Skv rises.
size_t workspace_bytes(const Problem& problem);
attnmux_code run(const Problem& problem, const RunContext& context, attnmux_error* error);

/// Launches an instance for this dtype and tiles of head dims up to this, or with kKeys (the files sm90_*.cu), after it
/// has made the tensor maps.
attnmux_code launch_64_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_128_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_64_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_128_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_keys_bf16(FlashSm90Call& call, void* stream, attnmux_error* error);
attnmux_code launch_keys_fp16(FlashSm90Call& call, void* stream, attnmux_error* error);

}  // namespace attnmux::joint
