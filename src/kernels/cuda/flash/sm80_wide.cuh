// SPDX-License-Identifier: Apache-2.0
// The kernel of sm80_wide.h. Warp (m, c) of a block has rows [32m, 32m + 32): of their scores, the keys of quarter c
// of a tile; of their output, every fourth group of 16 columns. So softmax exchanges maxima, and P goes through shared
// memory. Chunks of K and V pass through a ring, one barrier each.
#pragma once

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/flash/sm80_block.cuh"
#include "kernels/cuda/flash/sm80_launch.cuh"
#include "kernels/cuda/flash/sm80_scores.cuh"
#include "kernels/cuda/flash/sm80_tile.cuh"
#include "kernels/cuda/flash/sm80_wide.h"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace attnmux {
namespace {

template <int kDim, int kShape>
struct WideTile {
  static constexpr WideShape kOf = kWideShapes[kShape];
  static constexpr int kWarpsM = kOf.warps_m, kWarpsN = 4, kThreads = kWarpsM * kWarpsN * 32, kRing = kOf.chunks;
  static constexpr int kRowTiles = 2, kM = kWarpsM * kRowTiles * 16, kN = wide_keys(kWarpsM);
  static constexpr int kColumns = 128, kKChunks = kDim / kColumns;          // of K: all keys, some columns
  static constexpr int kKeys = kN * kColumns / 512, kVChunks = kN / kKeys;  // of V: some keys, all columns
  static constexpr uint32_t kQBytes = kM * kDim * 2, kPBytes = kM * kN * 2, kMaxBytes = kM * kWarpsN * 4;
  static constexpr uint32_t kChunkBytes = kN * kColumns * 2;
  static constexpr size_t kSharedBytes = kQBytes + kPBytes + kMaxBytes + kRing * kChunkBytes;
  static_assert(kSharedBytes == wide_shared_bytes(kDim, kOf) && kDim % 128 == 0);
};

template <typename T, int kDim, int kShape, bool kGeneral>
__global__ void __launch_bounds__(WideTile<kDim, kShape>::kThreads)
    flash_sm80_wide(const __grid_constant__ FlashSm80Call call) {
  using Shape = WideTile<kDim, kShape>;
  constexpr int kM = Shape::kM, kN = Shape::kN, kRowTiles = Shape::kRowTiles, kThreads = Shape::kThreads;
  constexpr int kScoreTiles = kN / 8 / Shape::kWarpsN, kColumnSteps = kDim / 16 / Shape::kWarpsN;
  constexpr int kUnroll = 2;                                  // of copies: more would take registers from the output
  constexpr int kChunks = Shape::kKChunks + Shape::kVChunks;  // of a tile
  extern __shared__ __align__(1024) unsigned char shared[];
  const uint32_t shared_q = ptx::shared_address(shared), shared_p = shared_q + Shape::kQBytes;
  const uint32_t shared_ring = shared_p + Shape::kPBytes;
  auto* shared_maxima = reinterpret_cast<float*>(shared + Shape::kQBytes + Shape::kPBytes +
                                                 Shape::kRing * Shape::kChunkBytes);  // (row, warp)
  const Problem& p = call.p;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int quarter = warp % Shape::kWarpsN, warp_row = warp / Shape::kWarpsN * kRowTiles * 16;

  QueryBlock block(p, call.q_tiles, kM);
  if (block.empty()) return;
  const int64_t b = block.b, head = block.head, kv_head = block.kv_head;
  const Sequence& s = block.s;
  const int queries = block.queries, first_query = block.first_query, last_query = block.last_query;
  Positions& positions = block.positions;
  int &first_key = block.first_key, &end_key = block.end_key;
  if constexpr (kGeneral) trim_keys<kThreads>(p, b, head, first_key, end_key);

  const int head_dim = static_cast<int>(p.head_dim), head_dim_v = static_cast<int>(p.head_dim_v);
  const bool aligned = !kGeneral || call.aligned_in != 0;
  const T* k = element<const T>(p.k, s.k_offset + kv_head * p.k.strides[2]);
  const T* v = element<const T>(p.v, s.v_offset + kv_head * p.v.strides[2]);

  // Copies the next chunk to place `at` of the ring: those of K, then those of V, tile by tile.
  int key = first_key / kN * kN, ahead = 0, ahead_key = key;
  const auto load_next = [&](uint32_t at) {
    if (ahead_key < end_key) {
      if (ahead < Shape::kKChunks) {
        load_tile<T, Shape::kColumns, kN, kThreads, false, kGeneral, kUnroll>(
            shared_ring + at, k + ahead * Shape::kColumns, p.k.strides[1], ahead_key, first_key, end_key,
            head_dim - ahead * Shape::kColumns, aligned, nullptr, 0);
      } else {
        // A value that padding hides from all queries may be NaN: it is not read.
        const uint8_t* padding = nullptr;
        if (kGeneral && given(p.key_padding))
          padding = element<const uint8_t>(p.key_padding, b * p.key_padding.strides[0]);
        load_tile<T, kDim, Shape::kKeys, kThreads, false, kGeneral, kUnroll>(
            shared_ring + at, v, p.v.strides[1], ahead_key + (ahead - Shape::kKChunks) * Shape::kKeys, first_key,
            end_key, head_dim_v, aligned, padding, p.key_padding.strides[1]);
      }
      if (++ahead == kChunks) {
        ahead = 0;
        ahead_key += kN;
      }
    }
    ptx::cp_async_commit();  // an empty group too: the ring counts them
  };
  uint32_t ring = 0;  // of the chunk that is in use
  // Waits for the next chunk; then the place of the one before is free.
  const auto arrived = [&] {
    ptx::cp_async_wait<Shape::kRing - 2>();
    __syncthreads();
    load_next((ring == 0 ? Shape::kRing * Shape::kChunkBytes : ring) - Shape::kChunkBytes);
  };
  const auto done = [&] {
    ring += Shape::kChunkBytes;
    if (ring == Shape::kRing * Shape::kChunkBytes) ring = 0;
  };

  if (key < end_key) {
    const T* q = element<const T>(p.q, s.q_offset + head * p.q.strides[2]);
    load_tile<T, kDim, kM, kThreads, false, kGeneral, kUnroll>(shared_q, q, p.q.strides[1], first_query, first_query,
                                                               last_query + 1, head_dim, aligned, nullptr, 0);
#pragma unroll
    for (int i = 0; i < Shape::kRing - 1; ++i) load_next(i * Shape::kChunkBytes);
  }

  float out[kRowTiles][2 * kColumnSteps][4] = {};
  RowState state[kRowTiles][2];
  const int lane_query = first_query + warp_row + lane / 4;
  const auto queries_at = left_factor<kM>(shared_q, warp_row, lane);
  const auto probabilities_at = left_factor<kM>(shared_p, warp_row, lane);
  const auto keys_at = right_factor<kN>(shared_ring + quarter * (kN / Shape::kWarpsN) * 128, lane);
  // Groups of 16 columns, of which this warp has every fourth: the permutation is the same for all.
  const auto values_at = right_factor_transposed<Shape::kKeys>(shared_ring, lane);
  const uint32_t value_row = values_at.row + (static_cast<uint32_t>(quarter * 32) ^ values_at.swap);
  const bool natural = kGeneral && call.natural != 0, lazy = call.lazy != 0;
  const float factor = natural ? kFlashLog2E : call.scale_log2;

  for (; key < end_key; key += kN) {
    const int own_key = key + quarter * (kN / Shape::kWarpsN);
    float score[kRowTiles][kScoreTiles][4] = {};
#pragma unroll 1
    for (int chunk = 0; chunk < Shape::kKChunks; ++chunk) {
      arrived();
      const uint32_t pages = static_cast<uint32_t>(chunk * (Shape::kColumns / 64) * kM * 128);
#pragma unroll
      for (int step = 0; step < Shape::kColumns / 16; ++step) {
        uint32_t a[kRowTiles][4];
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) ptx::ldmatrix_x4(a[r], queries_at.fragment(pages, r * 16, step));
#pragma unroll
        for (int n = 0; n < kScoreTiles / 2; ++n) {
          uint32_t right[4];
          ptx::ldmatrix_x4(right, keys_at.fragment(ring, n * 16, step));
#pragma unroll
          for (int r = 0; r < kRowTiles; ++r) {
            ptx::mma_m16n8k16<T>(score[r][2 * n], a[r], right[0], right[1]);
            ptx::mma_m16n8k16<T>(score[r][2 * n + 1], a[r], right[2], right[3]);
          }
        }
      }
      done();
    }

    const bool partial = key < positions.begin(last_query) || key + kN > positions.end(first_query);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const int query = lane_query + r * 16;
      const LaneRows rows{{query, query + 8}, {head, head}};
      if constexpr (kGeneral) {
        shape_scores<kScoreTiles>(call, queries, positions.key_length, b, rows, own_key, lane, score[r]);
      }
      if (partial) mask_positions<kScoreTiles>(positions, rows, own_key, lane, score[r]);
      float largest[2];
      row_maxima<kScoreTiles>(score[r], largest);
      if (lane % 4 < 2) {
        const int row = warp_row + r * 16 + lane / 4 + lane % 4 * 8;
        shared_maxima[row * Shape::kWarpsN + quarter] = lane % 4 == 0 ? largest[0] : largest[1];
      }
    }
    __syncthreads();  // maxima are there; P of the tile before has been read
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      float largest[2], rescale[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = warp_row + r * 16 + lane / 4 + half * 8;
        const float4 of = *reinterpret_cast<const float4*>(shared_maxima + row * Shape::kWarpsN);
        largest[half] = fmaxf(fmaxf(of.x, of.y), fmaxf(of.z, of.w));
      }
      // The warps that share these rows all decide alike.
      if (takes_maximum(lazy, factor, state[r], largest)) {
        renew(factor, largest, state[r], rescale);
#pragma unroll
        for (int n = 0; n < 2 * kColumnSteps; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) out[r][n][i] *= rescale[i / 2];
        }
      }
      if (natural) {
        probabilities<true, kScoreTiles>(factor, score[r], state[r]);
      } else {
        probabilities<false, kScoreTiles>(factor, score[r], state[r]);
      }
      if constexpr (kGeneral) {
        const int query = lane_query + r * 16;
        const LaneRows rows{{query, query + 8}, {head, head}};
        if (call.threshold != 0) drop<kScoreTiles>(call, b, rows, own_key, lane, score[r]);
      }
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          ptx::store_shared_4(
              piece_address<kM>(shared_p, warp_row + r * 16 + lane / 4 + half * 8, quarter * kScoreTiles + n) +
                  lane % 4 * 4,
              ptx::pack<T>(score[r][n][2 * half], score[r][n][2 * half + 1]));
        }
      }
    }

#pragma unroll 1
    for (int chunk = 0; chunk < Shape::kVChunks; ++chunk) {
      arrived();  // and, the first time, P is there
#pragma unroll
      for (int step = 0; step < Shape::kKeys / 16; ++step) {
        const int at = chunk * (Shape::kKeys / 16) + step;
        uint32_t a[kRowTiles][4];
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) ptx::ldmatrix_x4(a[r], probabilities_at.fragment(0, r * 16, at));
#pragma unroll
        for (int n = 0; n < kColumnSteps; ++n) {
          uint32_t right[4];
          ptx::ldmatrix_x4_transposed(right, value_row + ring + step * 16 * 128 + n * (Shape::kKeys * 128));
#pragma unroll
          for (int r = 0; r < kRowTiles; ++r) {
            ptx::mma_m16n8k16<T>(out[r][2 * n], a[r], right[0], right[1]);
            ptx::mma_m16n8k16<T>(out[r][2 * n + 1], a[r], right[2], right[3]);
          }
        }
      }
      done();
    }
  }

  // Sums of the four warps, in order, in the place of the maxima.
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = quad_sum(state[r][half].sum);
      const int row = warp_row + r * 16 + lane / 4 + half * 8;
      if (lane % 4 == 0) shared_maxima[row * Shape::kWarpsN + quarter] = sum;
    }
  }
  __syncthreads();
  // Computed again, behind the compiler's back, so that no offset holds registers during the loop.
  int64_t item_again = int64_t{blockIdx.x};
  asm volatile("" : "+l"(item_again));
  const int first_again = static_cast<int>(call.q_tiles - 1 - item_again % call.q_tiles) * kM;
  item_again /= call.q_tiles;
  const int64_t head_out = item_again % p.num_heads_q;
  const Sequence place = sequence(p, item_again / p.num_heads_q);
  const int end_query = static_cast<int>(place.seqlen_q);
  T* out_head = element<T>(p.out, place.out_offset + head_out * p.out.strides[2]);
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + lane / 4 + r * 16 + 8 * half, query = first_again + row;
      if (query >= end_query) continue;
      const float4 of = *reinterpret_cast<const float4*>(shared_maxima + row * Shape::kWarpsN);
      const float sum = of.x + of.y + of.z + of.w;
      const bool empty = sum == 0;
      const float inverse = empty ? 0 : (kGeneral ? call.kept : 1.0f) / sum;
      T* to = out_head + query * p.out.strides[1] + quarter * 16 + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < 2 * kColumnSteps; ++n) {
        const int column = n / 2 * (16 * Shape::kWarpsN) + n % 2 * 8;
        if (column + quarter * 16 >= head_dim_v) break;
        const float left = empty ? 0 : out[r][n][2 * half] * inverse,
                    right = empty ? 0 : out[r][n][2 * half + 1] * inverse;
        if (!kGeneral || call.aligned_out != 0) {
          *reinterpret_cast<uint32_t*>(to + column) = ptx::pack<T>(left, right);
        } else {
          to[column] = from_real<T>(left);
          to[column + 1] = from_real<T>(right);
        }
      }
      if (given(p.lse) && quarter == 0 && lane % 4 == 0) {
        *element<float>(p.lse, place.lse_offset + head_out * p.lse.strides[1] + query * p.lse.strides[2]) =
            empty ? -INFINITY : state[r][half].log_sum_exp(natural, sum, call.scale_log2);
      }
    }
  }
}

template <typename T, int kDim, int kShape, bool kGeneral>
cudaError_t launch_wide_instance(FlashSm80Call& call, cudaStream_t stream) {
  using Shape = WideTile<kDim, kShape>;
  const auto kernel = flash_sm80_wide<T, kDim, kShape, kGeneral>;
  call.q_tiles = ceil_div(call.p.seqlen_q, Shape::kM);
  const int64_t blocks = call.q_tiles * call.p.num_heads_q * call.p.batch;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  constinit static std::atomic<uint32_t> allowed{0};
  return launch_with_shared(kernel, allowed, call.p.device_id, Shape::kSharedBytes, [&] {
    kernel<<<static_cast<unsigned>(blocks), Shape::kThreads, Shape::kSharedBytes, stream>>>(call);
  });
}

template <typename T, int kDim, bool kGeneral>
cudaError_t launch_wide_dim(FlashSm80Call& call, cudaStream_t stream) {
  switch (wide_shape(kDim, call.shared_limit)) {
    case 0:
      return launch_wide_instance<T, kDim, 0, kGeneral>(call, stream);
    case 1:
      return launch_wide_instance<T, kDim, 1, kGeneral>(call, stream);
    default:
      return launch_wide_instance<T, kDim, 2, kGeneral>(call, stream);
  }
}

template <typename T>
cudaError_t launch_flash_wide(FlashSm80Call& call, bool positions_only, cudaStream_t stream) {
  const bool narrow = max_of(call.p.head_dim, call.p.head_dim_v) <= 384;
  if (positions_only) {
    return narrow ? launch_wide_dim<T, 384, false>(call, stream) : launch_wide_dim<T, 512, false>(call, stream);
  }
  return narrow ? launch_wide_dim<T, 384, true>(call, stream) : launch_wide_dim<T, 512, true>(call, stream);
}

}  // namespace
}  // namespace attnmux
