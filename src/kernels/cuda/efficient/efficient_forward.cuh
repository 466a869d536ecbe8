// SPDX-License-Identifier: Apache-2.0
// One block per 64 queries of a head, one warp per 16. Q, K and V lie in shared memory as fp32; factors are split where
// they are read. Masks, biases, softmax and dropout are those of cuda_flash_sm80.
#pragma once

#include <atomic>

#include "kernels/cuda/efficient/efficient.h"
#include "kernels/cuda/efficient/efficient_split.cuh"
#include "kernels/cuda/flash/sm80_launch.cuh"

namespace attnmux {
namespace {

constexpr int kEfficientThreads = 128;

// Rows [row, row + kRows) of a tensor as fp32; what lies outside of [first, end), or is padding, becomes zero unread.
template <typename T, int kDim, int kRows>
__device__ inline void load_floats(float* to, const T* from, int64_t stride, int row, int first, int end, int dim,
                                   bool aligned, const Tensor* padding, int64_t padding_row) {
  constexpr int kPieces = kDim / 4, kPitch = kDim + 4;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kEfficientThreads) {
    const int r = i / kPieces, column = i % kPieces * 4, at = row + r;
    bool wanted = at >= first && at < end;
    if (wanted && padding != nullptr) wanted = attends(*padding, padding_row + at * padding->strides[1]);
    const int count = wanted ? max(0, min(4, dim - column)) : 0;
    const T* source = from + at * stride + column;
    float* target = to + r * kPitch + column;
    if constexpr (sizeof(T) == 4) {
      if (aligned) {
        ptx::cp_async_16(ptx::shared_address(target), count > 0 ? source : from, count * 4);
        continue;
      }
    }
    float4 x = make_float4(0, 0, 0, 0);
    if (count > 0) x.x = to_float(source[0]);
    if (count > 1) x.y = to_float(source[1]);
    if (count > 2) x.z = to_float(source[2]);
    if (count > 3) x.w = to_float(source[3]);
    *reinterpret_cast<float4*>(target) = x;
  }
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kEfficientThreads, kDim <= 64    ? 3
                                                     : kDim <= 128 ? 2
                                                                   : 1)
    efficient_forward(const __grid_constant__ FlashSm80Call call) {
  constexpr int kM = kEfficientQueries, kN = efficient_keys(kDim), kPitch = kDim + 4, kScoreTiles = kN / 8;
  constexpr bool kWide = sizeof(T) == 4;
  extern __shared__ __align__(16) float shared_floats[];
  float *shared_q = shared_floats, *shared_k = shared_q + kM * kPitch, *shared_v = shared_k + kN * kPitch;
  const Problem& p = call.p;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4, t = lane % 4;

  // The last tile first, since a causal mask leaves it most.
  const int64_t item = int64_t{blockIdx.x} / call.q_tiles;
  const int first_query = static_cast<int>(call.q_tiles - 1 - int64_t{blockIdx.x} % call.q_tiles) * kM;
  const int64_t b = item / p.num_heads_q, head = item % p.num_heads_q;
  const Sequence s = sequence(p, b);
  const int queries = static_cast<int>(s.seqlen_q);
  if (first_query >= queries) return;
  const int last_query = min(first_query + kM, queries) - 1;
  const Positions positions(p, s);
  int first_key = positions.begin(first_query), end_key = positions.end(last_query);
  trim_keys<kEfficientThreads>(p, b, head, first_key, end_key);

  const int head_dim = static_cast<int>(p.head_dim), head_dim_v = static_cast<int>(p.head_dim_v);
  const bool aligned = call.aligned_in != 0;
  const int64_t kv_head = head / (p.num_heads_q / p.num_heads_kv);
  const T* q = element<const T>(p.q, s.q_offset + head * p.q.strides[2]);
  const T* k = element<const T>(p.k, s.k_offset + kv_head * p.k.strides[2]);
  const T* v = element<const T>(p.v, s.v_offset + kv_head * p.v.strides[2]);
  const int lane_query = first_query + warp * 16 + g;
  const LaneRows rows{{lane_query, lane_query + 8}, {head, head}};

  float out[kDim / 8][4] = {};
  RowState state[2];
  int key = first_key / kN * kN;
  if (key < end_key) {
    load_floats<T, kDim, kM>(shared_q, q, p.q.strides[1], first_query, first_query, last_query + 1, head_dim, aligned,
                             nullptr, 0);
  }
  for (; key < end_key; key += kN) {
    __syncthreads();  // every warp is done with the tile before
    load_floats<T, kDim, kN>(shared_k, k, p.k.strides[1], key, first_key, end_key, head_dim, aligned, nullptr, 0);
    // A value that padding hides from all queries may be NaN: it is not read.
    load_floats<T, kDim, kN>(shared_v, v, p.v.strides[1], key, first_key, end_key, head_dim_v, aligned,
                             given(p.key_padding) ? &p.key_padding : nullptr, b * p.key_padding.strides[0]);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();

    float score[kScoreTiles][4] = {};
    for (int step = 0; step < head_dim; step += 32) {
      LeftFactor a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* at = shared_q + (warp * 16 + g) * kPitch + step + 8 * i + t;
        a[i].set({at[0], at[8 * kPitch], at[4], at[8 * kPitch + 4]});
      }
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
        float part[4] = {};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* at = shared_k + (8 * n + g) * kPitch + step + 8 * i + t;
          multiply_split<kWide, kWide>(part, a[i], at[0], at[4]);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) score[n][i] += part[i];
      }
    }

    shape_scores<kScoreTiles>(call, queries, positions.key_length, b, rows, key, lane, score);
    // Some query of the block does not keep some key of the tile; or the tile goes beyond what padding leaves.
    const bool partial = key < positions.begin(last_query) || key + kN > positions.end(first_query);
    if (partial) mask_positions<kScoreTiles>(positions, rows, key, lane, score);
    bool any = false;
#pragma unroll
    for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) any = any || score[n][i] != -INFINITY;
    }
    if (__any_sync(0xFFFFFFFFu, any)) {  // else a mask empties the tile for the rows of this warp
      float rescale[2];
      softmax<true, kScoreTiles>(score, false, kFlashLog2E, state, rescale);
      if (call.threshold != 0) drop<kScoreTiles>(call, b, rows, key, lane, score);
      // The order of keys within a product is free, so P stays where the first product left it: k = t is key 2t of
      // eight, and k = t+4 is key 2t+1.
      LeftFactor a[kScoreTiles];
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) a[n].set({score[n][0], score[n][2], score[n][1], score[n][3]});
#pragma unroll
      for (int column = 0; column < kDim / 8; ++column) {
        if (column * 8 >= head_dim_v) break;
        float part[4] = {};
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
          const float* at = shared_v + (8 * n + 2 * t) * kPitch + column * 8 + g;
          multiply_split<true, kWide>(part, a[n], at[0], at[kPitch]);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) out[column][i] = fmaf(out[column][i], rescale[i / 2], part[i]);
      }
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = lane_query + 8 * half;
    const float sum = quad_sum(state[half].sum);
    const bool empty = sum == 0;
    const float inverse = empty ? 0 : call.kept / sum;
    if (query > last_query) continue;
    T* to = element<T>(p.out, s.out_offset + query * p.out.strides[1] + head * p.out.strides[2]);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = 8 * n + 2 * t + i;
        if (column < head_dim_v) to[column] = from_real<T>(empty ? 0.0f : out[n][2 * half + i] * inverse);
      }
    }
    if (given(p.lse) && t == 0) {
      *element<float>(p.lse, s.lse_offset + head * p.lse.strides[1] + query * p.lse.strides[2]) =
          empty ? -INFINITY : state[half].log_sum_exp(true, sum, call.scale_log2);
    }
  }
}

template <typename T, int kDim>
cudaError_t launch_efficient_instance(FlashSm80Call& call, cudaStream_t stream) {
  const auto shared = static_cast<size_t>(efficient_shared_bytes(kDim));
  call.q_tiles = ceil_div(call.p.seqlen_q, kEfficientQueries);
  const int64_t blocks = call.q_tiles * call.p.num_heads_q * call.p.batch;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  constinit static std::atomic<uint32_t> allowed{0};
  return launch_with_shared(efficient_forward<T, kDim>, allowed, call.p.device_id, shared, [&] {
    efficient_forward<T, kDim><<<static_cast<unsigned>(blocks), kEfficientThreads, shared, stream>>>(call);
  });
}

template <typename T>
cudaError_t launch_efficient(FlashSm80Call& call, cudaStream_t stream) {
  switch (efficient_columns(max_of(call.p.head_dim, call.p.head_dim_v))) {
    case 64:
      return launch_efficient_instance<T, 64>(call, stream);
    case 128:
      return launch_efficient_instance<T, 128>(call, stream);
    default:
      return launch_efficient_instance<T, 256>(call, stream);
  }
}

}  // namespace
}  // namespace attnmux
