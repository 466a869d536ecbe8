// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/joint/sm90.h"

#include <cmath>

#include "kernels/cuda/runtime/alignment.h"
#include "kernels/cuda/runtime/device.h"

namespace attnmux::joint {
namespace {

constexpr int64_t kMaxHeadDim = 128, kFewQueries = 128;
constexpr double kLog2E = 1.4426950408889634;

// What does not change with B, Sq and Skv.
bool may_take(const Problem& p) {
  constexpr uint64_t kOthers = ATTNMUX_BIAS | ATTNMUX_SOFTCAP;
  const auto scale_log2 = static_cast<float>(p.scale * kLog2E);
  return p.dtype != ATTNMUX_E4M3 && (p.features & kOthers) == 0 && scale_log2 > 0 && std::isfinite(scale_log2) &&
         p.head_dim <= kMaxHeadDim && p.head_dim_v <= kMaxHeadDim;
}

FlashSm90Features features_of(const Problem& p) {
  constexpr uint64_t kKeys = ATTNMUX_MASK_KEY_PADDING | ATTNMUX_MASK_DENSE | ATTNMUX_VARLEN;
  if ((p.features & kKeys) != 0) return FlashSm90Features::kKeys;
  return p.window_left >= 0 || p.window_right >= 0 ? FlashSm90Features::kPositions : FlashSm90Features::kPlain;
}
int tile_index(const Problem& p) {
  return flash_sm90_tile_index(p.head_dim, p.head_dim_v, features_of(p), p.seqlen_kv);
}

FlashSm90StepShape step_shape(const Problem& p) {
  const FlashSm90Tile tile = flash_sm90_tile(tile_index(p), features_of(p));
  return {int64_t{64} * tile.groups, tile.keys};
}

bool may_share(const Problem& p, int keys) {
  return features_of(p) == FlashSm90Features::kPlain && ceil_div(p.seqlen_kv, keys) > kFlashSm90ShareCost;
}

}  // namespace

bool takes(const Problem& p) { return may_take(p) && p.seqlen_q > kFewQueries; }

// Counters, and the pieces of tiles. Each block may leave two pieces, and no more blocks than there are steps have any.
// More keys may mean another tile; what is needed must not shrink. So this counts the smallest steps of all tiles.
size_t workspace_bytes(const Problem& p) {
  if (!may_take(p)) return 0;
  if (features_of(p) == FlashSm90Features::kKeys) return flash_sm90_stream_bytes(p, step_shape(p));
  if (!may_share(p, kFlashSm90FewestKeys)) return 0;
  const FlashSm90Tile tile = flash_sm90_tile(tile_index(p), features_of(p));
  const int64_t most = cuda_machine().device[p.device_id].multiprocessors;
  const int64_t tiles = min_of(p.batch * p.num_heads_q * ceil_div(p.seqlen_q, 64 * tile.groups), most);
  const int64_t pieces = 2 * min_of(tiles * min_of(ceil_div(p.seqlen_kv, kFlashSm90FewestKeys), most), most);
  return kFlashSm90ArrivalBytes + static_cast<size_t>(pieces * flash_sm90_partial_floats(tile) * 4);
}

attnmux_code run(const Problem& p, const RunContext& context, attnmux_error* error) {
  FlashSm90Call call{};
  call.p = p;
  call.features = features_of(p);
  call.scale_log2 = static_cast<float>(p.scale * kLog2E);
  call.multiprocessors = cuda_machine().device[p.device_id].multiprocessors;
  call.l2_bytes = cuda_machine().device[p.device_id].l2_bytes;
  call.aligned_out = rows_aligned(p.out, 2, 16) ? 1 : 0;
  const int index = tile_index(p);
  if (may_share(p, kFlashSm90Tiles[index].keys)) {
    call.arrivals = static_cast<int32_t*>(context.workspace);
    call.partials = reinterpret_cast<float*>(static_cast<char*>(context.workspace) + kFlashSm90ArrivalBytes);
  }
  const bool bf16 = p.dtype == ATTNMUX_BF16;
  if (call.features == FlashSm90Features::kKeys) {
    place_flash_sm90_stream(p, step_shape(p), context.workspace, call.keys, call.queue);
    return (bf16 ? launch_keys_bf16 : launch_keys_fp16)(call, context.stream, error);
  }
  auto launch = bf16 ? launch_128_bf16 : launch_128_fp16;
  if (index < kFlashSm90Begin128) launch = bf16 ? launch_64_bf16 : launch_64_fp16;
  return launch(call, context.stream, error);
}

}  // namespace attnmux::joint
