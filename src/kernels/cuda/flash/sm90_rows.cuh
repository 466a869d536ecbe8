// SPDX-License-Identifier: Apache-2.0
// The rows that a warpgroup has summed up: put together where several blocks had pieces of them, and stored. For the
// kernels whose consumers are not Sm90Consumer. Thread and register (n, i) of a result as in sm90_softmax.cuh.
#pragma once

#include "kernels/cuda/flash/sm90_epilogue.cuh"
#include "kernels/cuda/flash/sm90_split.cuh"

namespace attnmux {
namespace {

// Of the rows lane/4 and lane/4 + 8 of a warp: sum of the row, and the maximum that its exponents are relative to.
struct Sm90Sums {
  float maximum[2], sum[2];
};

// Which part of a tile a warpgroup has: `group` of the tile's `groups`, in block `rank` of a cluster of `cluster`.
struct Sm90Part {
  int rank, cluster, group, groups;
};

// As Sm90Consumer::join_pieces: true if this piece was the last, and then sums and outputs are those of all keys.
// `output(i)` is output i of a thread; exponents are maxima times `exponent`.
template <int kCount, typename Output>
__device__ inline bool join_rows(const FlashSm90Call& call, const Sm90Turn& turn, Sm90Part part, uint32_t word,
                                 uint32_t barrier, float exponent, Sm90Sums& of, const Output& output) {
  constexpr int kFloats = kCount + 4, kGroupFloats = 128 * kFloats;
  const FlashSm90Shares& shares = call.shares;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  // A block has pieces of at most two tiles.
  const auto partial = [&](int block) {
    const int second = turn.tile > block * shares.share / shares.steps ? 1 : 0;
    const int64_t slot = int64_t{(block * 2 + second) * part.cluster + part.rank} * part.groups + part.group;
    return call.partials + slot * kGroupFloats + thread;
  };
  float* mine = partial(turn.first_block + turn.piece);
#pragma unroll
  for (int i = 0; i < kCount; ++i) mine[i * 128] = output(i);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    mine[(kCount + i) * 128] = of.maximum[i];
    mine[(kCount + 2 + i) * 128] = of.sum[i];
  }
  int32_t* counter = call.arrivals + (turn.tile * part.cluster + part.rank) * part.groups + part.group;
  if (arrive(counter, word, thread, barrier) != turn.pieces - 1) return false;

#pragma unroll
  for (int i = 0; i < kCount; ++i) output(i) = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    of.maximum[i] = -INFINITY;
    of.sum[i] = 0;
    for (int piece = 0; piece < turn.pieces; ++piece)
      of.maximum[i] = fmaxf(of.maximum[i], load_partial(partial(turn.first_block + piece) + (kCount + i) * 128));
  }
#pragma unroll 1
  for (int piece = 0; piece < turn.pieces; ++piece) {
    const float* from = partial(turn.first_block + piece);
    float weight[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float whole = of.maximum[i] == -INFINITY ? 0 : of.maximum[i];
      weight[i] = ptx::exp2_approximate((load_partial(from + (kCount + i) * 128) - whole) * exponent);
      of.sum[i] += weight[i] * load_partial(from + (kCount + 2 + i) * 128);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) output(i) += weight[i / 2 % 2] * load_partial(from + i * 128);
  }
  return true;
}

// Stores kColumns columns from `first_column` on, output(i)·factor/sum each; and lse(maximum, sum) where `first_column`
// is 0.
template <typename T, int kColumns, typename Output, typename Lse>
__device__ inline void store_rows(const FlashSm90Call& call, const Sm90Place& place, int lane_row, int first_column,
                                  float factor, const Sm90Sums& of, const Output& output, const Lse& lse) {
  const Problem& problem = call.p;
  const Sm90Sequence sequence = sm90_sequence(call, place.b);
  const int quad_lane = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool none = of.sum[half] == 0;
    const float inverse = none ? 0 : factor / of.sum[half];
    const int query = place.first_query + lane_row + 8 * half;
    const bool exists = query < sequence.queries;
    T* to = element<T>(problem.out, sequence.batch * problem.out.strides[0] +
                                        (sequence.q_row + query) * problem.out.strides[1] +
                                        place.head * problem.out.strides[2]);
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += 4) {
      uint32_t word[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float left = output(4 * (n + i) + 2 * half), right = output(4 * (n + i) + 2 * half + 1);
        word[i] = none ? 0 : ptx::pack<T>(left * inverse, right * inverse);
      }
      transpose_quad(word);
      const int column = first_column + 8 * (n + quad_lane);
      if (exists && column < problem.head_dim_v) store_piece(to + column, word, call.aligned_out != 0);
    }
    if (given(problem.lse) && exists && first_column == 0 && quad_lane == 0) {
      *element<float>(problem.lse, sequence.batch * problem.lse.strides[0] + place.head * problem.lse.strides[1] +
                                       (sequence.q_row + query) * problem.lse.strides[2]) =
          none ? -INFINITY : lse(of.maximum[half], of.sum[half]);
    }
  }
}

}  // namespace
}  // namespace attnmux
