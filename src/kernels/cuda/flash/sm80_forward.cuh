// SPDX-License-Identifier: Apache-2.0
// FlashAttention-2 forward (Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning",
// 2023, algorithm 1) with mma.sync. A block has kM queries of one head and walks over tiles of kN keys; a warp has the
// queries of kRowTiles·16 rows, all keys and all columns of the output, so that softmax needs no shared memory.
#pragma once

#include <cfloat>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/flash/sm80.h"
#include "kernels/cuda/flash/sm80_block.cuh"
#include "kernels/cuda/flash/sm80_products.cuh"
#include "kernels/cuda/flash/sm80_scores.cuh"
#include "kernels/cuda/flash/sm80_tile.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace attnmux {
namespace {

template <typename T, int kDim, FlashFeatures kFeatures>
__global__ void __launch_bounds__(FlashTile<kDim, kFeatures>::kThreads)
    flash_sm80_forward(const __grid_constant__ FlashSm80Call call) {
  using Shape = FlashTile<kDim, kFeatures>;
  constexpr bool kGeneral = Shape::kGeneral, kMasks = Shape::kMasks, kKeys = Shape::kKeys;
  constexpr int kM = Shape::kM, kN = Shape::kN, kRowTiles = Shape::kRowTiles;
  constexpr int kScoreTiles = kN / 8, kOutTiles = kDim / 8;
  extern __shared__ __align__(1024) unsigned char shared[];
  const uint32_t shared_q = ptx::shared_address(shared);
  const uint32_t shared_k = shared_q + Shape::kQBytes, shared_v = shared_k + Shape::kKvBytes;
  const Problem& p = call.p;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;

  QueryBlock block(p, call.q_tiles, kM);
  if (block.empty()) return;
  const int64_t b = block.b, head = block.head, kv_head = block.kv_head;
  const Sequence& s = block.s;
  const int queries = block.queries, first_query = block.first_query, last_query = block.last_query;
  Positions& positions = block.positions;
  int &first_key = block.first_key, &end_key = block.end_key;
  // The tile of head_dim may be wider than the one of the instance for positions, whose sums this one repeats.
  const bool lazy = kGeneral || kMasks || kKeys ? call.lazy != 0 : Shape::kLazy;
  const bool natural = (kGeneral || kMasks) && call.natural != 0;
  bool holes = false;  // padding or a mask hides keys among those that are left
  if constexpr (kGeneral || kMasks || kKeys) {
    holes = trim_keys<Shape::kThreads>(p, b, head, first_key, end_key);
    if (!holes) positions.key_length = end_key;
  }

  const int head_dim = static_cast<int>(p.head_dim), head_dim_v = static_cast<int>(p.head_dim_v);
  const bool aligned = !kGeneral || call.aligned_in != 0;
  const T* k = element<const T>(p.k, s.k_offset + kv_head * p.k.strides[2]);
  const T* v = element<const T>(p.v, s.v_offset + kv_head * p.v.strides[2]);

  float out[kRowTiles][kOutTiles][4] = {};
  RowState state[kRowTiles][2];
  const int lane_query = first_query + warp * 16 + lane / 4;  // of row tile 0, and 8 further
  const auto queries_at = left_factor<kM>(shared_q, warp * 16, lane);
  const auto keys_at = right_factor<kN>(shared_k, lane);
  const auto values_at = right_factor_transposed<kN>(shared_v, lane);

  const auto load_k = [&](int key, uint32_t stage) {
    load_tile<T, kDim, kN, Shape::kThreads, kGeneral>(shared_k + stage, k, p.k.strides[1], key, first_key, end_key,
                                                      head_dim, aligned, nullptr, 0);
  };
  const auto load_v = [&](int key, uint32_t stage) {
    // A value that padding hides from all queries may be NaN: it is not read.
    const uint8_t* padding = nullptr;
    if ((kGeneral || kMasks || kKeys) && given(p.key_padding))
      padding = element<const uint8_t>(p.key_padding, b * p.key_padding.strides[0]);
    load_tile<T, kDim, kN, Shape::kThreads, kGeneral>(shared_v + stage, v, p.v.strides[1], key, first_key, end_key,
                                                      head_dim_v, aligned, padding, p.key_padding.strides[1]);
  };

  // Key padding, mask and bias of a tile, behind K and V.
  const uint32_t shared_padding = shared_q + static_cast<uint32_t>(Shape::kSharedBytes);
  const uint32_t shared_mask = shared_padding + Shape::kPaddingBytes;
  const uint32_t shared_bias = shared_mask + (kMasks && given(p.dense_mask) ? Shape::kMaskBytes : 0);
  const auto load_masks = [&](int key) {
    if (given(p.key_padding) && holes && threadIdx.x < kN) {
      const int64_t at = key + static_cast<int>(threadIdx.x);
      const bool keep =
          at < end_key && attends(p.key_padding, b * p.key_padding.strides[0] + at * p.key_padding.strides[1]);
      ptx::store_shared_1(shared_padding + threadIdx.x, keep ? 1 : 0);
    }
    if (given(p.dense_mask) && holes) {
      const Tensor& t = p.dense_mask;
      load_score_tile<kM, kN, Shape::kThreads>(
          shared_mask, Shape::kMaskPitch,
          element<const unsigned char>(t, b * t.strides[0] + head * t.strides[1] + first_query * t.strides[2] + key),
          t.strides[2], queries - first_query, end_key - key);
    }
    if (given(p.bias)) {
      const Tensor& t = p.bias;
      const int bytes = t.dtype == ATTNMUX_FP32 ? 4 : 2;
      const auto* from = element<const unsigned char>(
          t, (b * t.strides[0] + head * t.strides[1] + first_query * t.strides[2] + key) * bytes);
      const int rows = queries - first_query, columns = (end_key - key) * bytes;
      if (bytes == 4) {
        load_score_tile<kM, kN * 4, Shape::kThreads>(shared_bias, Shape::bias_pitch(4), from, t.strides[2] * 4, rows,
                                                     columns);
      } else {
        load_score_tile<kM, kN * 2, Shape::kThreads>(shared_bias, Shape::bias_pitch(2), from, t.strides[2] * 2, rows,
                                                     columns);
      }
    }
  };

  int key = first_key / kN * kN;  // of the tile
  if (key < end_key) {
    const T* q = element<const T>(p.q, s.q_offset + head * p.q.strides[2]);
    load_tile<T, kDim, kM, Shape::kThreads, kGeneral>(shared_q, q, p.q.strides[1], first_query, first_query,
                                                      last_query + 1, head_dim, aligned, nullptr, 0);
    load_k(key, 0);
    if (Shape::kStages == 2) load_v(key, 0);
    ptx::cp_async_commit();
  }
  uint32_t stage = 0;
  for (; key < end_key; key += kN) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // K has arrived (two buffers: K and V have); every warp is done with the tile before
    if constexpr (Shape::kStages == 1) {
      load_v(key, 0);
      if constexpr (kMasks) load_masks(key);
      ptx::cp_async_commit();
    } else if (key + kN < end_key) {
      load_k(key + kN, stage ^ Shape::kStageBytes);
      load_v(key + kN, stage ^ Shape::kStageBytes);
      ptx::cp_async_commit();
    }

    float score[kRowTiles][kScoreTiles][4] = {};
    multiply_scores<T, kDim, kM, kN, kRowTiles, kGeneral>(queries_at, keys_at, stage, head_dim, score);

    if constexpr (Shape::kStages == 1) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // V has arrived; every warp has read K
      if (key + kN < end_key) {
        load_k(key + kN, 0);
        ptx::cp_async_commit();
      }
    }

    // Some query of the block does not keep some key of the tile.
    const bool partial = key < positions.begin(last_query) || key + kN > positions.end(first_query);
    const auto finish = [&](int r) {
      const int query = lane_query + r * Shape::kWarps * 16;
      const LaneRows rows{{query, query + 8}, {head, head}};
      if constexpr (kGeneral) {
        shape_scores<kScoreTiles>(call, queries, positions.key_length, b, rows, key, lane, score[r]);
      }
      if (partial) mask_positions<kScoreTiles>(positions, rows, key, lane, score[r]);
      if constexpr (kKeys) {
        if (holes) hide_keys<kScoreTiles>(p, b, head, key, end_key, lane, score[r]);
      }
      if constexpr (kMasks) {
        const int row = warp * 16 + r * Shape::kWarps * 16 + lane / 4;
        if (given(p.key_padding) && holes) hide_padding<kScoreTiles>(shared_padding + lane % 4 * 2, score[r]);
        if (given(p.dense_mask) && holes) {
          hide_masked<kScoreTiles>(shared_mask + row * Shape::kMaskPitch + lane % 4 * 2, Shape::kMaskPitch, score[r]);
        }
        if (natural) {
          const bool wide = p.bias.dtype == ATTNMUX_FP32;
          const uint32_t pitch = Shape::bias_pitch(wide ? 4 : 2);
          add_bias<kScoreTiles>(shared_bias + row * pitch + lane % 4 * (wide ? 8 : 4), pitch, p.bias.dtype,
                                static_cast<float>(p.scale), score[r]);
        }
      }
    };
    const auto rescale_out = [&](int r, const float(&rescale)[2]) {
#pragma unroll
      for (int n = 0; n < kOutTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[r][n][i] *= rescale[i / 2];
      }
    };
    if constexpr (Shape::kSideBySide) {
      float largest[kRowTiles][2];
      bool taken[kRowTiles];
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        finish(r);
        row_maxima<kScoreTiles>(score[r], largest[r]);
        taken[r] = takes_maximum(lazy, call.scale_log2, state[r], largest[r]);
      }
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        if (!taken[r]) continue;
        float rescale[2];
        renew(call.scale_log2, largest[r], state[r], rescale);
        rescale_out(r, rescale);
      }
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) probabilities<false, kScoreTiles>(call.scale_log2, score[r], state[r]);
    } else {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        finish(r);
        float rescale[2];
        const bool taken = natural ? softmax<true, kScoreTiles>(score[r], lazy, kFlashLog2E, state[r], rescale)
                                   : softmax<false, kScoreTiles>(score[r], lazy, call.scale_log2, state[r], rescale);
        if constexpr (kGeneral) {
          const int query = lane_query + r * Shape::kWarps * 16;
          const LaneRows rows{{query, query + 8}, {head, head}};
          if (call.threshold != 0) drop<kScoreTiles>(call, b, rows, key, lane, score[r]);
        }
        if (taken) rescale_out(r, rescale);
      }
    }

    multiply_values<T, kDim, kN, kRowTiles, kGeneral>(values_at, stage, head_dim_v, score, out);
    if (Shape::kStages == 2) stage ^= Shape::kStageBytes;
  }

  const OutputPlace place(p, call.q_tiles);
  T* out_head = element<T>(p.out, place.s.out_offset + place.head * p.out.strides[2]);
  // Where rows can be written 16 bytes at a time they pass through the place of Q, of which a warp read its own rows.
  const bool staged = Shape::kStagedOut && call.aligned_out == 16;
  if (staged) __syncwarp();
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    const int tile_row = (r * Shape::kWarps + warp) * 16;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = lane_query + r * Shape::kWarps * 16 + 8 * half;
      const float sum = quad_sum(state[r][half].sum);
      const bool empty = sum == 0;
      const float inverse = empty ? 0 : (kGeneral ? call.kept : 1.0f) / sum;
      if (query > last_query) continue;
      T* to = out_head + query * p.out.strides[1] + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < kOutTiles; ++n) {
        if (n * 8 >= head_dim_v) break;
        const float left = empty ? 0 : out[r][n][2 * half] * inverse,
                    right = empty ? 0 : out[r][n][2 * half + 1] * inverse;
        if (staged) {
          ptx::store_shared_4(piece_address<kM>(shared_q, tile_row + lane / 4 + 8 * half, n) + lane % 4 * 4,
                              ptx::pack<T>(left, right));
        } else if (!kGeneral || call.aligned_out != 0) {
          *reinterpret_cast<uint32_t*>(to + n * 8) = ptx::pack<T>(left, right);
        } else {
          to[n * 8] = from_real<T>(left);
          to[n * 8 + 1] = from_real<T>(right);
        }
      }
      if (given(p.lse) && lane % 4 == 0) {
        *element<float>(p.lse, place.s.lse_offset + place.head * p.lse.strides[1] + query * p.lse.strides[2]) =
            empty ? -INFINITY : state[r][half].log_sum_exp(natural, sum, call.scale_log2);
      }
    }
    if (!staged) continue;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kOutTiles / 2; ++i) {
      const int row = (lane + 32 * i) / kOutTiles, piece = (lane + 32 * i) % kOutTiles;
      const int query = first_query + tile_row + row;
      if (query > last_query || piece * 8 >= head_dim_v) continue;
      *reinterpret_cast<uint4*>(out_head + query * p.out.strides[1] + piece * 8) =
          ptx::load_shared_16(piece_address<kM>(shared_q, tile_row + row, piece));
    }
  }
}

}  // namespace
}  // namespace attnmux
