// SPDX-License-Identifier: Apache-2.0
// E4M3 on Hopper: q, k and v of 8 bits with descales, output bf16.
//
// Products of 8-bit numbers want both factors contiguous along k, so V must be transposed. A kernel of its own does
// that once: inside the main kernel every tile of queries would do it again, with instructions that softmax needs.
#pragma once

#include "kernels/cuda/flash/sm90.h"

namespace attnmux {

// The tensor cores add up 8-bit products with about 13 bits; so sums over the keys of one step only are left to them,
// and added in fp32 (two-level accumulation). Turns at the tensor cores (ping_pong) make no difference. A thread holds
// dim_v/2 outputs, as many of those sums (of 256 columns, a quarter at a time), keys/2 scores and keys/8 words of P.
// clang-format off
inline constexpr FlashSm90Tile kFlashSm90Fp8Tiles[] = {
    {.dim = 64, .dim_v = 64, .groups = 2, .keys = 128, .stages = 4, .cluster = 1, .ping_pong = false, .lazy = false, .narrow = true},
    {.dim = 128, .dim_v = 128, .groups = 2, .keys = 128, .stages = 4, .cluster = 1, .ping_pong = false, .lazy = false, .narrow = true},
    {.dim = 256, .dim_v = 256, .groups = 2, .keys = 64, .stages = 3, .cluster = 1, .ping_pong = false, .lazy = false, .narrow = true},
};
// clang-format on
inline constexpr int kFlashSm90Fp8TileCount = sizeof(kFlashSm90Fp8Tiles) / sizeof(FlashSm90Tile);

constexpr int flash_sm90_fp8_index(int64_t head_dim, int64_t head_dim_v) {
  int i = 0;
  while (i + 1 < kFlashSm90Fp8TileCount && max_of(head_dim, head_dim_v) > kFlashSm90Fp8Tiles[i].dim) ++i;
  return i;
}
inline constexpr int64_t kFlashSm90Fp8MaxDim = kFlashSm90Fp8Tiles[kFlashSm90Fp8TileCount - 1].dim;

/// The copy of V in the workspace, (B, Hkv, Dv, keys): each sequence begins at a multiple of so many keys, and what
/// lies between them is zero, so that steps may reach beyond a sequence's end.
inline constexpr int64_t kFlashSm90ValueBlock = 128;
/// Keys of the copy per batch entry; of packed sequences, of all.
inline int64_t flash_sm90_value_keys(const Problem& p) {
  const int64_t keys = given(p.cu_seqlens_kv) ? p.v.shape[1] + p.batch * kFlashSm90ValueBlock : p.seqlen_kv;
  return round_up(keys, kFlashSm90ValueBlock);
}
inline int64_t flash_sm90_value_bytes(const Problem& p) {
  const int64_t batch = given(p.cu_seqlens_kv) ? 1 : p.batch;
  return round_up(batch * p.num_heads_kv * p.head_dim_v * flash_sm90_value_keys(p), 1024);
}

/// Transposes V to `values`, then launches an instance; what is not kPlain runs as kPositions, lengths of packed
/// sequences too.
attnmux_code launch_flash_sm90_fp8(FlashSm90Call& call, void* values, void* stream, attnmux_error* error);

}  // namespace attnmux
