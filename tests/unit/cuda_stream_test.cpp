// SPDX-License-Identifier: Apache-2.0
// What cuda_flash_sm90 lays out in its workspace, and when heads share tiles: rules of the host, which need no GPU.
#include <gtest/gtest.h>

#ifdef ATTNMUX_HAS_CUDA
#include <kernels/cuda/flash/sm90.h>

#include <vector>

namespace attnmux {
namespace {

const FlashSm90Tile kTile = flash_sm90_tile(flash_sm90_tile_index(128, 128), FlashSm90Features::kKeys);
const FlashSm90StepShape kShape = flash_sm90_step_shape(kTile);

Problem problem(int64_t batch, int64_t seqlen_q, int64_t seqlen_kv, int64_t heads_q, int64_t heads_kv) {
  Problem p{};
  p.batch = batch;
  p.seqlen_q = seqlen_q;
  p.seqlen_kv = seqlen_kv;
  p.num_heads_q = heads_q;
  p.num_heads_kv = heads_kv;
  p.head_dim = p.head_dim_v = 128;
  p.q.strides[2] = 128;
  return p;
}

// A mask that differs in the dimensions with a 1: batch entries, heads, queries.
void give_dense(Problem& p, const std::vector<int>& differs) {
  p.dense_mask.dtype = ATTNMUX_BOOL;
  for (size_t i = 0; i < 3; ++i) p.dense_mask.strides[i] = differs[i];
  p.dense_mask.strides[3] = 1;
}

FlashSm90Keys keys_of(const Problem& p) {
  FlashSm90Keys keys{};
  FlashSm90Queue queue{};
  place_flash_sm90_stream(p, kShape, nullptr, keys, queue);
  return keys;
}

TEST(CudaStream, WhatIsTheSameInAMaskIsThereOnce) {
  const int64_t rows = 64 * kTile.groups, tiles = ceil_div(1000, rows);
  for (int bits = 0; bits < 8; ++bits) {
    Problem p = problem(3, 1000, 2000, 4, 4);
    const bool b = (bits & 1) != 0, h = (bits & 2) != 0, q = (bits & 4) != 0;
    give_dense(p, {b, h, q});
    const FlashSm90Keys keys = keys_of(p);
    EXPECT_EQ(keys.items, (b ? 3 : 1) * (h ? 4 : 1) * (q ? tiles : 1)) << bits;
    EXPECT_EQ(keys.rows, q ? rows : 1) << bits;
    EXPECT_EQ(keys.steps, ceil_div(2000, kTile.keys));
    // Every item is reached, by one place only.
    std::vector<int> seen(static_cast<size_t>(keys.items));
    for (int64_t batch = 0; batch < (b ? 3 : 1); ++batch) {
      for (int64_t head = 0; head < (h ? 4 : 1); ++head) {
        for (int64_t tile = 0; tile < (q ? tiles : 1); ++tile) {
          const int64_t item = batch * keys.batch_items + head * keys.head_items + tile * keys.tile_items;
          ++seen.at(static_cast<size_t>(item));
        }
      }
    }
    for (const int times : seen) EXPECT_EQ(times, 1) << bits;
  }
}

TEST(CudaStream, PaddingDiffersFromBatchEntryToBatchEntry) {
  Problem p = problem(3, 1000, 2000, 4, 4);
  p.key_padding.dtype = ATTNMUX_BOOL;
  EXPECT_EQ(keys_of(p).items, 3);
  EXPECT_EQ(keys_of(p).rows, 1);
  give_dense(p, {0, 0, 1});
  EXPECT_EQ(keys_of(p).items, 3 * ceil_div(1000, 64 * kTile.groups));
}

TEST(CudaStream, TheWorkspaceHoldsAllPartsAndNeverFalls) {
  for (const bool varlen : {false, true}) {
    for (const bool padding : {false, true}) {
      Problem p = problem(1, 1, 1, 4, 4);
      if (varlen) p.cu_seqlens_q.dtype = ATTNMUX_INT32;
      if (padding) p.key_padding.dtype = ATTNMUX_BOOL;
      give_dense(p, {1, 1, 1});
      size_t before = 0;
      for (const int64_t n : {1, 2, 127, 128, 129, 1000, 4000}) {
        p.batch = p.seqlen_q = p.seqlen_kv = n;
        const size_t bytes = flash_sm90_stream_bytes(p, kShape);
        EXPECT_GE(bytes, before) << n;
        before = bytes;
        FlashSm90Keys keys{};
        FlashSm90Queue queue{};
        auto* base = reinterpret_cast<unsigned char*>(0x10000);
        place_flash_sm90_stream(p, kShape, base, keys, queue);
        const auto at = [base](const void* x) { return static_cast<const unsigned char*>(x) - base; };
        ASSERT_NE(queue.next, nullptr);
        EXPECT_EQ(queue.order != nullptr, varlen);
        if (varlen) {
          EXPECT_LE(at(queue.first_place + p.batch + 1), at(keys.states));
        }
        EXPECT_LE(at(keys.states + keys.items * keys.steps), at(keys.bits));
        EXPECT_LE(at(keys.bits + keys.items * keys.steps * keys.rows * 4 * keys.words), static_cast<ptrdiff_t>(bytes));
      }
    }
  }
}

TEST(CudaStream, NothingIsLookedAtWithoutKeys) {
  Problem p = problem(3, 1000, 0, 4, 4);
  p.key_padding.dtype = ATTNMUX_BOOL;
  EXPECT_EQ(flash_sm90_stream_bytes(p, kShape), 0u);
  EXPECT_EQ(keys_of(p).states, nullptr);
}

TEST(CudaStream, HeadsShareTilesWhereThatMakesFewer) {
  EXPECT_EQ(flash_sm90_pack(problem(8, 16, 8192, 32, 8), kTile), 4);
  EXPECT_EQ(flash_sm90_pack(problem(8, 1, 8192, 32, 8), kTile), 4);
  EXPECT_EQ(flash_sm90_pack(problem(8, 1, 8192, 28, 4), kTile), 7);
  EXPECT_EQ(flash_sm90_tile_rows(kTile, 7), 126);
  EXPECT_EQ(flash_sm90_pack(problem(8, 1024, 1024, 64, 8), kTile), 1);  // as many either way
  EXPECT_EQ(flash_sm90_pack(problem(8, 16, 8192, 8, 8), kTile), 1);
  EXPECT_EQ(flash_sm90_pack(problem(1, 1, 8192, 512, 1), kTile), 1);  // more heads than rows
  Problem expanded = problem(8, 16, 8192, 32, 8);
  expanded.q.strides[2] = 0;
  EXPECT_EQ(flash_sm90_pack(expanded, kTile), 1);  // the map needs a stride from head to head
}

}  // namespace
}  // namespace attnmux
#endif
