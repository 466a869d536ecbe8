// SPDX-License-Identifier: Apache-2.0
// From accumulators to the output, without shared memory, so that no tile waits for a store.
#pragma once

#include "kernels/cuda/flash/joint/sm90_consumer.cuh"

namespace attnmux::joint {
namespace {

// Lane t of a quad has word i of piece t in word[i]... afterwards it has the four words of piece t: a transposed 4×4.
__device__ inline void transpose_quad(uint32_t (&word)[4], int quad_lane) {
  const bool odd = quad_lane % 2 != 0, high = quad_lane >= 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, odd ? word[i] : word[i + 1], 1);
    (odd ? word[i] : word[i + 1]) = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, high ? word[i] : word[i + 2], 2);
    (high ? word[i] : word[i + 2]) = got;
  }
}

template <typename T>
__device__ inline void store_piece(T* to, const uint32_t (&word)[4], bool aligned) {
  if (aligned) {
    *reinterpret_cast<uint4*>(to) = make_uint4(word[0], word[1], word[2], word[3]);
    return;
  }
  auto* bits = reinterpret_cast<uint16_t*>(to);
#pragma unroll
  for (int i = 0; i < 8; ++i) bits[i] = static_cast<uint16_t>(word[i / 2] >> (i % 2 * 16));
}

// All words first, then all stores: the exchanges of one piece then hide below those of the others.
template <typename T, FlashSm90Tile kTile, FlashSm90Features kFeatures>
__device__ inline void Sm90Consumer<T, kTile, kFeatures>::store(uint32_t announcement, const Sm90Row (&row)[2]) {
  const Problem& problem = call.p;
  const int head = announced(announcement, kWordHead), batch = announced(announcement, kWordBatch);
  const int first_query = announced(announcement, kWordFirstQuery), queries = announced(announcement, kWordQueries);
  const int q_row = announced(announcement, kWordQRow);
  const int thread = ptx::thread_again(), quad_lane = thread % 4;
  float sum[2] = {row[0].sum, row[1].sum};
#pragma unroll
  for (int distance = 1; distance <= 2; ++distance) {
#pragma unroll
    for (int half = 0; half < 2; ++half) sum[half] += __shfl_xor_sync(0xFFFFFFFFu, sum[half], distance);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool none = sum[half] == 0;
    const float inverse = ptx::reciprocal_approximate(sum[half]);
    constexpr int kPieces = kTile.dim_v / 32;
    uint32_t word[kPieces][4];
#pragma unroll
    for (int n = 0; n < kPieces; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float left = out[4 * (4 * n + i) + 2 * half], right = out[4 * (4 * n + i) + 2 * half + 1];
        word[n][i] = none ? 0 : ptx::pack<T>(left * inverse, right * inverse);
      }
      transpose_quad(word[n], quad_lane);
    }
    const int query = first_query + lane_row(thread) + 8 * half;
    if (query >= queries) continue;
    T* to = element<T>(problem.out, batch * problem.out.strides[0] + (q_row + query) * problem.out.strides[1] +
                                        head * problem.out.strides[2]) +
            8 * quad_lane;
    const int columns = static_cast<int>(problem.head_dim_v) - 8 * quad_lane;
    if (call.aligned_out != 0) {
#pragma unroll
      for (int n = 0; n < kPieces; ++n) {
        if (32 * n < columns) store_piece(to + 32 * n, word[n], true);
      }
    } else {
#pragma unroll
      for (int n = 0; n < kPieces; ++n) {
        if (32 * n < columns) store_piece(to + 32 * n, word[n], false);
      }
    }
    if (given(problem.lse) && quad_lane == 0) {
      *element<float>(problem.lse, batch * problem.lse.strides[0] + head * problem.lse.strides[1] +
                                       (q_row + query) * problem.lse.strides[2]) =
          none ? -INFINITY : log_sum_exp(row[half].maximum, sum[half], call.scale_log2);
    }
  }
}

}  // namespace
}  // namespace attnmux::joint
