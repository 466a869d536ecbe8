// SPDX-License-Identifier: Apache-2.0
// Tiles whose keys several blocks share: each leaves outputs, maxima and sums in the workspace, and the one that is
// done last puts them together, in the order of the keys, whoever it is: so results do not depend on who that was.
#pragma once

#include "kernels/cuda/flash/joint/sm90_consumer.cuh"

namespace attnmux::joint {
namespace {

// How many pieces of this tile were done before this one; the threads of a group call it together.
__device__ inline int arrive(int32_t* counter, uint32_t shared_word, int thread, uint32_t barrier) {
  __threadfence();
  ptx::named_barrier_sync(barrier, 128);
  if (thread == 0) {
    const int before = atomicAdd(counter, 1);
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(shared_word), "r"(before) : "memory");
  }
  ptx::named_barrier_sync(barrier, 128);
  int before;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(before) : "r"(shared_word) : "memory");
  __threadfence();
  return ptx::uniform(before);
}

// Past L1: another block has written it.
__device__ inline float load_partial(const float* from) {
  float x;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(x) : "l"(from) : "memory");
  return x;
}

// True if this piece was the last: then the group has the whole tile's outputs, maxima and sums.
template <typename T, FlashSm90Tile kTile, FlashSm90Features kFeatures>
__device__ inline bool Sm90Consumer<T, kTile, kFeatures>::join_pieces(uint32_t announcement) {
  const Sm90Turn turn = announced_piece(announcement);
  constexpr int kFloats = kTile.dim_v / 2 + 4, kGroupFloats = 128 * kFloats;
  const FlashSm90Shares& shares = call.shares;
  const int thread = ptx::thread_again() % 128;
  // A block has pieces of at most two tiles.
  const auto partial = [&](int block) {
    const int second = turn.tile > block * shares.share / shares.steps ? 1 : 0;
    return call.partials +
           (int64_t{(block * 2 + second) * kTile.cluster + rank} * kTile.groups + group) * kGroupFloats + thread;
  };
  float* mine = partial(turn.first_block + turn.piece);
#pragma unroll
  for (int i = 0; i < kTile.dim_v / 2; ++i) mine[i * 128] = out[i];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    mine[(kFloats - 4 + half) * 128] = row[half].maximum;
    mine[(kFloats - 2 + half) * 128] = row[half].sum;
  }
  int32_t* counter = call.arrivals + (turn.tile * kTile.cluster + rank) * kTile.groups + group;
  if (arrive(counter, shared.word(group), thread, 5 + static_cast<uint32_t>(group)) != turn.pieces - 1) return false;

  row[0] = row[1] = {};
  clear();
  for (int piece = 0; piece < turn.pieces; ++piece) {
    const float* from = partial(turn.first_block + piece);
#pragma unroll
    for (int half = 0; half < 2; ++half)
      row[half].maximum = fmaxf(row[half].maximum, load_partial(from + (kFloats - 4 + half) * 128));
  }
#pragma unroll 1
  for (int piece = 0; piece < turn.pieces; ++piece) {
    const float* from = partial(turn.first_block + piece);
    float weight[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float whole = row[half].maximum == -INFINITY ? 0 : row[half].maximum;
      weight[half] = ptx::exp2_approximate((load_partial(from + (kFloats - 4 + half) * 128) - whole) * call.scale_log2);
      row[half].sum += weight[half] * load_partial(from + (kFloats - 2 + half) * 128);
    }
#pragma unroll
    for (int i = 0; i < kTile.dim_v / 2; ++i) out[i] += weight[i / 2 % 2] * load_partial(from + i * 128);
  }
  return true;
}

}  // namespace
}  // namespace attnmux::joint
