// SPDX-License-Identifier: Apache-2.0
// From accumulators to the output, without shared memory, so that no tile waits for a store.
#pragma once

#include "kernels/cuda/flash/sm90_consumer.cuh"

namespace attnmux {
namespace {

// Lane t of a quad has word i of piece t in word[i]... afterwards it has the four words of piece t: a transposed 4×4.
__device__ inline void transpose_quad(uint32_t (&word)[4]) {
  const bool odd = threadIdx.x % 2 != 0, high = threadIdx.x % 4 >= 2;
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

template <typename T, FlashSm90Tile kTile, FlashSm90Features kFeatures>
__device__ inline void Sm90Consumer<T, kTile, kFeatures>::store(const Sm90Place& place, const Sm90Sequence& sequence) {
  const Problem& problem = call.p;
  const int quad_lane = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = row[half].sum;
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
    const bool none = sum == 0;
    const float inverse = none ? 0 : 1 / sum;
    const int tile_row = lane_row + 8 * half, row_of_all = place.first_query + tile_row;
    const int query = query_of<kFeatures>(call, row_of_all);
    int head = place.head;
    if constexpr (!kStreamed) head += row_of_all - query * call.pack;
    const bool exists = tile_row < call.tile_rows && query < sequence.queries;
    T* to =
        element<T>(problem.out, sequence.batch * problem.out.strides[0] +
                                    (sequence.q_row + query) * problem.out.strides[1] + head * problem.out.strides[2]);
#pragma unroll
    for (int n = 0; n < kTile.dim_v / 8; n += 4) {
      uint32_t word[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float left = out[4 * (n + i) + 2 * half], right = out[4 * (n + i) + 2 * half + 1];
        word[i] = none ? 0 : ptx::pack<T>(left * inverse, right * inverse);
      }
      transpose_quad(word);
      const int column = 8 * (n + quad_lane);
      if (exists && column < problem.head_dim_v) store_piece(to + column, word, call.aligned_out != 0);
    }
    if (given(problem.lse) && exists && quad_lane == 0) {
      *element<float>(problem.lse, sequence.batch * problem.lse.strides[0] + head * problem.lse.strides[1] +
                                       (sequence.q_row + query) * problem.lse.strides[2]) =
          none ? -INFINITY : log_sum_exp<kFeatures>(row[half].maximum, sum, call.scale_log2);
    }
  }
}

}  // namespace
}  // namespace attnmux
