// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm80_split.h"

namespace attnmux {
namespace {

// Fewer keys are read faster than partial results are combined.
constexpr int64_t kLeastKeys = 8 * kSplitKeys, kLeastPiece = 2, kMostPieces = 256;
// What a block does before and behind its keys, and what combining does, in tiles of keys.
constexpr double kBlockCost = 2, kCombineCost = 4;
// The share of the rows of whole heads' tiles that packed tiles must save to be worth their narrower shape.
constexpr double kPacked = 0.6;

int64_t shared_bytes_of(int64_t head_dim) {  // as SplitTile
  const int64_t row = head_dim <= 64 ? 128 : head_dim <= 128 ? 256 : 512;
  return row * (kSplitRows + (head_dim > 128 ? 2 : 4) * kSplitKeys);
}

}  // namespace

int64_t split_slots(int64_t head_dim, int32_t multiprocessors, int32_t shared_bytes) {
  const int64_t wanted = head_dim <= 64 ? 4 : 2;  // what registers allow
  constexpr int64_t kPerBlock = 1024;             // what every block has beside
  const int64_t fit = (shared_bytes + kPerBlock) / (shared_bytes_of(head_dim) + kPerBlock);
  return multiprocessors * max_of(min_of(wanted, fit), 1);
}

FlashSplit flash_split(const Problem& p, int32_t multiprocessors, int64_t slots) {
  constexpr FlashSplit kWhole{0, 0};
  const int64_t key_tiles = ceil_div(p.seqlen_kv, kSplitKeys), group = p.num_heads_q / p.num_heads_kv;
  if (p.seqlen_kv < kLeastKeys || p.seqlen_q >= kFlashMaxLength / group) return kWhole;
  const int64_t tiles = ceil_div(p.seqlen_q * group, kSplitRows), all = tiles * p.num_heads_kv * p.batch;
  const int64_t rows = max_of(p.head_dim, p.head_dim_v) <= 128 ? 128 : 64;  // of a tile of whole heads
  const int64_t whole = ceil_div(p.seqlen_q, rows) * p.num_heads_q * p.batch;
  const bool fills = whole >= multiprocessors;
  if (fills && static_cast<double>(all * kSplitRows) > kPacked * static_cast<double>(whole * rows)) return kWhole;
  const auto waves = [slots](int64_t blocks) { return static_cast<double>(ceil_div(blocks, slots)); };
  int64_t best = 1;
  double least = waves(all) * (static_cast<double>(key_tiles) + kBlockCost);
  const int64_t most = min_of(min_of(slots / all, key_tiles / kLeastPiece), kMostPieces);
  for (int64_t pieces = 2; pieces <= most; ++pieces) {
    const double cost = static_cast<double>(ceil_div(key_tiles, pieces)) + kBlockCost + kCombineCost;
    if (cost < least) {
      least = cost;
      best = pieces;
    }
  }
  return {tiles, best};
}

size_t split_workspace_bytes(const Problem& p, int64_t slots) {
  if (p.seqlen_kv < kLeastKeys) return 0;
  return static_cast<size_t>(slots * kSplitRows * (p.head_dim_v + 2)) * sizeof(float);
}

}  // namespace attnmux
