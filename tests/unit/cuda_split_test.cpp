// SPDX-License-Identifier: Apache-2.0
// How cuda_flash_sm80 cuts keys into pieces: a rule of the host, which needs no GPU.
#include <gtest/gtest.h>

#ifdef ATTNMUX_HAS_CUDA
#include <kernels/cuda/flash/sm80_split.h>

#include <random>

namespace attnmux {
namespace {

constexpr int32_t kMultiprocessors = 132, kSharedBytes = 227 << 10;

Problem problem(int64_t batch, int64_t seqlen_q, int64_t seqlen_kv, int64_t heads_q, int64_t heads_kv, int64_t dim) {
  Problem p{};
  p.batch = batch;
  p.seqlen_q = seqlen_q;
  p.seqlen_kv = seqlen_kv;
  p.num_heads_q = heads_q;
  p.num_heads_kv = heads_kv;
  p.head_dim = p.head_dim_v = dim;
  return p;
}

FlashSplit split(const Problem& p) {
  return flash_split(p, kMultiprocessors, split_slots(p.head_dim, kMultiprocessors, kSharedBytes));
}

TEST(CudaSplit, DecodingFillsTheMultiprocessors) {
  // 16 queries of 4 heads share a tile; 64 tiles leave most of 264 places empty.
  const FlashSplit batch = split(problem(8, 16, 8192, 32, 8, 128));
  EXPECT_EQ(batch.tiles, 1);
  EXPECT_EQ(batch.pieces, 4);
  const FlashSplit one = split(problem(1, 1, 65536, 8, 1, 128));
  EXPECT_EQ(one.tiles, 1);
  EXPECT_GT(one.pieces, 132);
}

TEST(CudaSplit, WhatFillsThemAlreadyIsLeftWhole) {
  EXPECT_EQ(split(problem(1, 4608, 4608, 24, 24, 128)).pieces, 0);
  EXPECT_EQ(split(problem(4, 4096, 4096, 16, 16, 128)).pieces, 0);
  EXPECT_EQ(split(problem(2, 4096, 4096, 10, 10, 64)).pieces, 0);
  EXPECT_EQ(split(problem(2, 4096, 77, 10, 10, 64)).pieces, 0);  // too few keys
}

TEST(CudaSplit, OneLongHeadIsCut) {
  const FlashSplit one = split(problem(1, 4096, 16384, 1, 1, 128));
  EXPECT_EQ(one.tiles, 64);
  EXPECT_EQ(one.pieces, 4);
}

TEST(CudaSplit, FewQueriesOfManyHeadsArePackedWithoutBeingCut) {
  const FlashSplit packed = split(problem(64, 1, 4096, 32, 8, 128));
  EXPECT_EQ(packed.tiles, 1);
  EXPECT_EQ(packed.pieces, 1);
}

TEST(CudaSplit, SlotsFollowSharedMemory) {
  EXPECT_EQ(split_slots(128, 100, 227 << 10), 200);
  EXPECT_EQ(split_slots(128, 100, 99 << 10), 100);
  EXPECT_EQ(split_slots(64, 100, 99 << 10), 200);
  EXPECT_EQ(split_slots(256, 100, 99 << 10), 100);
  EXPECT_EQ(split_slots(256, 100, 16 << 10), 100);  // never none
}

TEST(CudaSplit, PartialResultsFitIntoTheWorkspaceWhichNeverShrinks) {
  std::mt19937 random(7);
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  int cut = 0;
  for (int round = 0; round < 20'000; ++round) {
    const int64_t heads_kv = pick(1, 8);
    Problem p = problem(pick(1, 8), pick(1, round % 2 == 0 ? 8 : 4096), pick(1, 20'000), heads_kv * pick(1, 8),
                        heads_kv, 8 * pick(1, 32));
    const int64_t slots = split_slots(p.head_dim, kMultiprocessors, kSharedBytes);
    const FlashSplit s = flash_split(p, kMultiprocessors, slots);
    if (s.pieces > 1) {
      ++cut;
      ASSERT_GE(s.tiles * kSplitRows, p.seqlen_q * (p.num_heads_q / p.num_heads_kv));
      const int64_t rows = s.tiles * p.num_heads_kv * p.batch * s.pieces * kSplitRows;
      ASSERT_LE(static_cast<size_t>(rows * (p.head_dim_v + 2)) * sizeof(float), split_workspace_bytes(p, slots));
      ASSERT_LE(s.pieces, ceil_div(p.seqlen_kv, kSplitKeys));
    }
    const size_t before = split_workspace_bytes(p, slots);
    (round % 3 == 0 ? p.batch : round % 3 == 1 ? p.seqlen_q : p.seqlen_kv) *= pick(1, 4);
    ASSERT_GE(split_workspace_bytes(p, slots), before);
  }
  EXPECT_GT(cut, 1000);
}

}  // namespace
}  // namespace attnmux
#endif
