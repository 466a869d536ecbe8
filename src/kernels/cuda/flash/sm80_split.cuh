// SPDX-License-Identifier: Apache-2.0
// The kernels of sm80_split.h. A block is four warps of 16 rows; row r of a tile is query r / group of query head
// kv_head·group + r % group.
#pragma once

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/flash/sm80_products.cuh"
#include "kernels/cuda/flash/sm80_scores.cuh"
#include "kernels/cuda/flash/sm80_split.h"
#include "kernels/cuda/flash/sm80_tile.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace attnmux {
namespace {

template <int kDim>
struct SplitTile {
  static constexpr int kM = kSplitRows, kN = kSplitKeys, kThreads = 128;
  static constexpr int kStages = kDim > 128 ? 1 : 2;
  static constexpr int kPages = (kDim + 63) / 64;
  static constexpr uint32_t kQBytes = kM * kPages * 128, kKvBytes = kN * kPages * 128, kStageBytes = 2 * kKvBytes;
  static constexpr size_t kSharedBytes = kQBytes + kStages * kStageBytes;
};

// Rows [first, end) of the kv head's queries; others become zero and are not read.
template <typename T, int kDim>
__device__ inline void load_packed_queries(uint32_t tile, const T* q, const Tensor& t, int first, int end, int group,
                                           int dim, bool aligned) {
  constexpr int kPieces = kDim / 8;
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(kSplitRows) * kPieces; i += 128) {
    const int row = i / kPieces, piece = i % kPieces, at = first + row;
    const bool read = at < end && piece * 8 < dim;
    const T* from = q + (at / group) * t.strides[1] + (at % group) * t.strides[2] + piece * 8;
    const uint32_t to = piece_address<kSplitRows>(tile, row, piece);
    if (aligned) {
      ptx::cp_async_16(to, read ? from : q, read ? 16 : 0);
    } else {
      copy_unaligned(to, read ? from : nullptr);
    }
  }
}

template <typename T, int kDim, bool kGeneral>
__global__ void __launch_bounds__(SplitTile<kDim>::kThreads)
    flash_sm80_split(const __grid_constant__ FlashSplitCall call) {
  using Shape = SplitTile<kDim>;
  constexpr int kM = Shape::kM, kN = Shape::kN, kScoreTiles = kN / 8, kOutTiles = kDim / 8;
  extern __shared__ __align__(1024) unsigned char shared[];
  const uint32_t shared_q = ptx::shared_address(shared);
  const uint32_t shared_k = shared_q + Shape::kQBytes, shared_v = shared_k + Shape::kKvBytes;
  const Problem& p = call.base.p;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;

  const int64_t place = int64_t{blockIdx.x} / call.pieces, piece = int64_t{blockIdx.x} % call.pieces;
  const int64_t item = place / call.tiles;
  const int64_t b = item / p.num_heads_kv, kv_head = item % p.num_heads_kv;
  const Sequence s = sequence(p, b);
  const int group = static_cast<int>(p.num_heads_q / p.num_heads_kv);
  const int queries = static_cast<int>(s.seqlen_q), rows = queries * group;
  const int first_row = static_cast<int>(place % call.tiles) * kM;
  if (first_row >= rows) return;
  const int end_row = min(first_row + kM, rows);
  const int first_query = first_row / group, last_query = (end_row - 1) / group;
  Positions positions(p, s);
  int first_key = positions.begin(first_query), end_key = positions.end(last_query);
  if constexpr (kGeneral) {
    // What padding hides at both ends is not read. A dense mask may differ from head to head: it is looked up.
    if (given(p.key_padding) && !given(p.dense_mask)) trim_keys<Shape::kThreads>(p, b, 0, first_key, end_key);
  }
  const int64_t first_tile = first_key / kN, tiles = max_of(ceil_div(end_key, kN) - first_tile, 0);
  int key = static_cast<int>(first_tile + tiles * piece / call.pieces) * kN;
  const int stop = min(static_cast<int>(first_tile + tiles * (piece + 1) / call.pieces) * kN, end_key);

  const int head_dim = static_cast<int>(p.head_dim), head_dim_v = static_cast<int>(p.head_dim_v);
  const bool aligned = !kGeneral || call.base.aligned_in != 0;
  const T* k = element<const T>(p.k, s.k_offset + kv_head * p.k.strides[2]);
  const T* v = element<const T>(p.v, s.v_offset + kv_head * p.v.strides[2]);
  const auto load = [&](int at, uint32_t stage, bool load_keys, bool load_values) {
    if (load_keys) {
      load_tile<T, kDim, kN, Shape::kThreads, true>(shared_k + stage, k, p.k.strides[1], at, first_key, end_key,
                                                    head_dim, aligned, nullptr, 0);
    }
    if (load_values) {
      // A value that padding hides from all queries may be NaN: it is not read.
      const uint8_t* padding = nullptr;
      if (kGeneral && given(p.key_padding))
        padding = element<const uint8_t>(p.key_padding, b * p.key_padding.strides[0]);
      load_tile<T, kDim, kN, Shape::kThreads, true>(shared_v + stage, v, p.v.strides[1], at, first_key, end_key,
                                                    head_dim_v, aligned, padding, p.key_padding.strides[1]);
    }
    ptx::cp_async_commit();
  };

  const bool lazy = call.base.lazy != 0;
  float out[1][kOutTiles][4] = {};
  RowState state[2];
  const int lane_row = first_row + warp * 16 + lane / 4;
  const LaneRows lane_rows{{lane_row / group, (lane_row + 8) / group},
                           {kv_head * group + lane_row % group, kv_head * group + (lane_row + 8) % group}};
  const auto queries_at = left_factor<kM>(shared_q, warp * 16, lane);
  const auto keys_at = right_factor<kN>(shared_k, lane);
  const auto values_at = right_factor_transposed<kN>(shared_v, lane);

  if (key < stop) {
    const T* q = element<const T>(p.q, s.q_offset + kv_head * group * p.q.strides[2]);
    load_packed_queries<T, kDim>(shared_q, q, p.q, first_row, end_row, group, head_dim, aligned);
    load(key, 0, true, Shape::kStages == 2);
  }
  uint32_t stage = 0;
  for (; key < stop; key += kN) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // K has arrived (two buffers: K and V have); every warp is done with the tile before
    if constexpr (Shape::kStages == 1) {
      load(key, 0, false, true);
    } else if (key + kN < stop) {
      load(key + kN, stage ^ Shape::kStageBytes, true, true);
    }
    float score[1][kScoreTiles][4] = {};
    multiply_scores<T, kDim, kM, kN, 1, true>(queries_at, keys_at, stage, head_dim, score);
    if constexpr (Shape::kStages == 1) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // V has arrived; every warp has read K
      if (key + kN < stop) load(key + kN, 0, true, false);
    }

    const bool partial = key < positions.begin(last_query) || key + kN > positions.end(first_query);
    if constexpr (kGeneral) {
      shape_scores<kScoreTiles>(call.base, queries, positions.key_length, b, lane_rows, key, lane, score[0]);
    }
    if (partial) mask_positions<kScoreTiles>(positions, lane_rows, key, lane, score[0]);
    float rescale[2];
    const bool renewed = kGeneral && call.base.natural != 0
                             ? softmax<true, kScoreTiles>(score[0], lazy, kFlashLog2E, state, rescale)
                             : softmax<false, kScoreTiles>(score[0], lazy, call.base.scale_log2, state, rescale);
    if (kGeneral && call.base.threshold != 0) drop<kScoreTiles>(call.base, b, lane_rows, key, lane, score[0]);
    if (renewed) {
#pragma unroll
      for (int n = 0; n < kOutTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[0][n][i] *= rescale[i / 2];
      }
    }
    multiply_values<T, kDim, kN, 1, true>(values_at, stage, head_dim_v, score, out);
    if (Shape::kStages == 2) stage ^= Shape::kStageBytes;
  }

  const bool natural = kGeneral && call.base.natural != 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane_row + 8 * half;
    const float sum = quad_sum(state[half].sum);
    if (row >= end_row) continue;
    if (call.pieces > 1) {
      const int64_t at = (place * call.pieces + piece) * kM + (row - first_row);
      if (lane % 4 == 0) call.state[at] = {state[half].maximum, sum};
      float* to = call.out + at * head_dim_v + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < kOutTiles; ++n) {
        if (n * 8 >= head_dim_v) break;
        *reinterpret_cast<float2*>(to + n * 8) = make_float2(out[0][n][2 * half], out[0][n][2 * half + 1]);
      }
      continue;
    }
    const bool empty = sum == 0;
    const float inverse = empty ? 0 : (kGeneral ? call.base.kept : 1.0f) / sum;
    const int64_t head = lane_rows.head[half], query = lane_rows.query[half];
    T* to = element<T>(p.out, s.out_offset + query * p.out.strides[1] + head * p.out.strides[2]) + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kOutTiles; ++n) {
      if (n * 8 >= head_dim_v) break;
      const float left = empty ? 0 : out[0][n][2 * half] * inverse,
                  right = empty ? 0 : out[0][n][2 * half + 1] * inverse;
      if (!kGeneral || call.base.aligned_out != 0) {
        *reinterpret_cast<uint32_t*>(to + n * 8) = ptx::pack<T>(left, right);
      } else {
        to[n * 8] = from_real<T>(left);
        to[n * 8 + 1] = from_real<T>(right);
      }
    }
    if (given(p.lse) && lane % 4 == 0) {
      *element<float>(p.lse, s.lse_offset + head * p.lse.strides[1] + query * p.lse.strides[2]) =
          empty ? -INFINITY : state[half].log_sum_exp(natural, sum, call.base.scale_log2);
    }
  }
}

// One block per row of a tile: every warp sums some of the pieces, in order, and the first sums the warps'.
template <typename T>
__global__ void __launch_bounds__(128) flash_sm80_combine(const __grid_constant__ FlashSplitCall call) {
  constexpr int kWarps = 4, kMaxDim = 256;
  __shared__ float sums[kWarps][kMaxDim];
  const Problem& p = call.base.p;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t place = int64_t{blockIdx.x} / kSplitRows, item = place / call.tiles;
  const int64_t b = item / p.num_heads_kv, kv_head = item % p.num_heads_kv;
  const int64_t group = p.num_heads_q / p.num_heads_kv;
  const int64_t row_of_tile = int64_t{blockIdx.x} % kSplitRows, row = place % call.tiles * kSplitRows + row_of_tile;
  const Sequence s = sequence(p, b);
  if (row >= s.seqlen_q * group) return;
  const int64_t first = place * call.pieces * kSplitRows + row_of_tile;  // and kSplitRows further for each piece
  const bool natural = call.base.natural != 0;
  const float to_log2 = natural ? kFlashLog2E : call.base.scale_log2;
  const int pieces = static_cast<int>(call.pieces), dim = static_cast<int>(p.head_dim_v);

  float maximum = -INFINITY;
  for (int i = lane; i < pieces; i += 32) {
    const PartialState one = call.state[first + i * kSplitRows];
    if (one.sum != 0) maximum = fmaxf(maximum, one.maximum);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(0xFFFFFFFFu, maximum, step));
  const float shift = maximum == -INFINITY ? 0 : maximum;
  const auto weight = [&](PartialState one) { return ptx::exp2_approximate((one.maximum - shift) * to_log2); };
  float sum = 0;
  for (int i = lane; i < pieces; i += 32) {
    const PartialState one = call.state[first + i * kSplitRows];
    if (one.sum != 0) sum += one.sum * weight(one);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);

  float4 out[kMaxDim / 128] = {};
  for (int i = warp; i < pieces; i += kWarps) {
    const PartialState one = call.state[first + i * kSplitRows];
    if (one.sum == 0) continue;  // no key of the piece counts for this row
    const float factor = weight(one);
    const auto* from = reinterpret_cast<const float4*>(call.out + (first + i * kSplitRows) * dim);
#pragma unroll
    for (int c = 0; c < kMaxDim / 128; ++c) {
      if ((c * 32 + lane) * 4 >= dim) break;
      const float4 x = from[c * 32 + lane];
      out[c].x += x.x * factor;
      out[c].y += x.y * factor;
      out[c].z += x.z * factor;
      out[c].w += x.w * factor;
    }
  }
#pragma unroll
  for (int c = 0; c < kMaxDim / 128; ++c) {
    if ((c * 32 + lane) * 4 < dim) *reinterpret_cast<float4*>(&sums[warp][(c * 32 + lane) * 4]) = out[c];
  }
  __syncthreads();
  const bool empty = sum == 0;
  const float inverse = empty ? 0 : call.base.kept / sum;
  const int64_t query = row / group, head = kv_head * group + row % group;
  T* to = element<T>(p.out, s.out_offset + query * p.out.strides[1] + head * p.out.strides[2]);
  for (int c = static_cast<int>(threadIdx.x); c < dim; c += 128) {
    const float total = sums[0][c] + sums[1][c] + sums[2][c] + sums[3][c];
    to[c] = from_real<T>(empty ? 0 : total * inverse);
  }
  if (given(p.lse) && threadIdx.x == 0) {
    *element<float>(p.lse, s.lse_offset + head * p.lse.strides[1] + query * p.lse.strides[2]) =
        empty ? -INFINITY : RowState{maximum, sum}.log_sum_exp(natural, sum, call.base.scale_log2);
  }
}

template <typename T, int kDim, bool kGeneral>
cudaError_t launch_split_instance(FlashSplitCall& call, cudaStream_t stream) {
  const Problem& p = call.base.p;
  const int64_t places = call.tiles * p.num_heads_kv * p.batch;
  if (places * max_of(call.pieces, kSplitRows) > INT32_MAX) return cudaErrorInvalidConfiguration;
  const auto kernel = flash_sm80_split<T, kDim, kGeneral>;
  constexpr size_t kShared = SplitTile<kDim>::kSharedBytes;
  constinit static std::atomic<uint32_t> allowed{0};
  const cudaError_t code = launch_with_shared(kernel, allowed, p.device_id, kShared, [&] {
    kernel<<<static_cast<unsigned>(places * call.pieces), SplitTile<kDim>::kThreads, kShared, stream>>>(call);
  });
  if (code != cudaSuccess || call.pieces == 1) return code;
  flash_sm80_combine<T><<<static_cast<unsigned>(places * kSplitRows), 128, 0, stream>>>(call);
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_flash_split(FlashSplitCall& call, bool positions_only, cudaStream_t stream) {
  const int64_t dim = max_of(call.base.p.head_dim, call.base.p.head_dim_v);
  if (positions_only) {
    return dim <= 64    ? launch_split_instance<T, 64, false>(call, stream)
           : dim <= 128 ? launch_split_instance<T, 128, false>(call, stream)
                        : launch_split_instance<T, 256, false>(call, stream);
  }
  return dim <= 64 ? launch_split_instance<T, 64, true>(call, stream)
                   : launch_split_instance<T, 128, true>(call, stream);
}

}  // namespace
}  // namespace attnmux
