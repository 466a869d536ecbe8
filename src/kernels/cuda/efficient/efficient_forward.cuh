// SPDX-License-Identifier: Apache-2.0
// A block has kM queries of one head and walks over tiles of kN keys; a warp has 16·kRowTiles of the rows. Masks,
// biases, softmax and dropout are those of cuda_flash_sm80. Products are summed per tile and added to the output in
// fp32.
#pragma once

#include <atomic>

#include "kernels/cuda/efficient/efficient_products.cuh"
#include "kernels/cuda/efficient/efficient_units.cuh"
#include "kernels/cuda/flash/sm80_block.cuh"
#include "kernels/cuda/flash/sm80_launch.cuh"

namespace attnmux {
namespace {

template <bool kValue>
struct Whole {
  static constexpr bool value = kValue;
};

template <typename T, int kDim, bool kGeneral>
__global__ void __launch_bounds__(EfficientTile<kDim, sizeof(T) == 4, kGeneral>::kThreads)
    efficient_forward(const __grid_constant__ EfficientCall call) {
  using Tile = EfficientTile<kDim, sizeof(T) == 4, kGeneral>;
  constexpr int kM = Tile::kM, kN = Tile::kN, kRowTiles = Tile::kRowTiles, kScoreTiles = kN / 8;
  extern __shared__ __align__(1024) unsigned char shared[];
  const uint32_t tiles = ptx::shared_address(shared);
  const Problem& p = call.base.p;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;

  QueryBlock block(p, call.base.q_tiles, kM);
  if (block.empty()) return;
  const int64_t b = block.b, head = block.head, kv_head = block.kv_head;
  const Sequence& s = block.s;
  const int queries = block.queries, first_query = block.first_query, last_query = block.last_query;
  const Positions& positions = block.positions;
  int &first_key = block.first_key, &end_key = block.end_key;
  if constexpr (kGeneral) trim_keys<Tile::kThreads>(p, b, head, first_key, end_key);

  const bool packed = given(p.cu_seqlens_kv);
  const int64_t first_row = packed ? clamped_entry(p.cu_seqlens_kv, b, call.rows) + kv_head * call.rows
                                   : (b * p.num_heads_kv + kv_head) * call.rows;
  const int k_columns = static_cast<int>(call.k.columns), v_columns = static_cast<int>(call.v.columns);
  const auto pitch = [](int columns) { return columns * Tile::kPlanes + static_cast<int>(kEfficientUnitHalves); };
  const auto* k = static_cast<const __half*>(call.k.rows) + first_row * pitch(k_columns);
  const auto* v = static_cast<const __half*>(call.v.rows) + first_row * pitch(v_columns);
  const uint8_t* padding =
      kGeneral && given(p.key_padding) ? element<const uint8_t>(p.key_padding, b * p.key_padding.strides[0]) : nullptr;
  const auto load = [&](int key, uint32_t stage) {
    const uint32_t to = tiles + stage;
    const auto copy = [&](auto whole, uint32_t at, const __half* from, int columns, const uint8_t* hidden) {
      copy_plane<Tile, decltype(whole)::value>(to + at, from, pitch(columns), columns, key, first_key, end_key, hidden,
                                               p.key_padding.strides[1]);
      if constexpr (Tile::kWide) {
        copy_plane<Tile, decltype(whole)::value>(to + at + Tile::kSmallAt, from + columns, pitch(columns), columns, key,
                                                 first_key, end_key, hidden, p.key_padding.strides[1]);
      }
    };
    if (padding == nullptr && key >= first_key && key + kN <= end_key) {
      copy(Whole<true>{}, 0, k, k_columns, nullptr);
      copy(Whole<true>{}, Tile::kValuesAt, v, v_columns, nullptr);
    } else {
      copy(Whole<false>{}, 0, k, k_columns, nullptr);
      // A value that padding hides from all queries may be NaN: it is not read.
      copy(Whole<false>{}, Tile::kValuesAt, v, v_columns, padding);
    }
    if (threadIdx.x < 2 * kN) {
      const int at = key + static_cast<int>(threadIdx.x) % kN;
      const bool values = threadIdx.x >= kN;
      bool read = at >= first_key && at < end_key;
      if (padding != nullptr && values && read) read = padding[at * p.key_padding.strides[1]] != 0;
      const int columns = values ? v_columns : k_columns;
      const __half* from = (values ? v : k) + columns * Tile::kPlanes;
      ptx::cp_async_4(to + Tile::kUnitsAt + threadIdx.x * 4,
                      read ? from + at * static_cast<int64_t>(pitch(columns)) : from, read ? 4 : 0);
    }
    ptx::cp_async_commit();
  };

  const bool natural = kGeneral && call.base.natural != 0;
  int key = first_key / kN * kN;  // of the tile
  if (key < end_key) load(key, 0);

  const int lane_query = first_query + warp * 16 + lane / 4;  // of row tile 0, and 8 further
  Queries<Tile> left[kRowTiles];
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    const T* row[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = lane_query + r * Tile::kWarps * 16 + 8 * half;
      const int64_t at = s.q_offset + query * p.q.strides[1] + head * p.q.strides[2];
      row[half] = query <= last_query ? element<const T>(p.q, at) : nullptr;
    }
    constexpr uint32_t kBytes = Tile::kSteps * Tile::kPlanes * 512;
    left[r].load(row, static_cast<int>(p.head_dim), lane,
                 tiles + static_cast<uint32_t>(call.stages) * Tile::kStageBytes +
                     static_cast<uint32_t>(r * Tile::kWarps + warp) * kBytes);
    if (!natural) {
#pragma unroll
      for (int half = 0; half < 2; ++half) left[r].unit[half] *= call.base.scale_log2;
    }
  }

  float out[kRowTiles][kDim / 8][4] = {};
  RowState state[kRowTiles][2];
  OutputUnits<kRowTiles> counted;
  const auto keys_at = right_factor<kN>(tiles, lane);
  const auto values_at = right_factor_transposed<kN>(tiles + Tile::kValuesAt, lane);
  uint32_t stage = 0;
  for (; key < end_key; key += kN) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // the tile has arrived; every warp is done with the tile before
    const bool two_stages = !Tile::kMayHaveOneStage || call.stages == 2;
    if (two_stages && key + kN < end_key) load(key + kN, Tile::kStageBytes - stage);

    float score[kRowTiles][kScoreTiles][4];
    split_scores<Tile>(left, opaque(keys_at), stage, score);

    // Some query of the block does not keep some key of the tile.
    const bool partial = key < positions.begin(last_query) || key + kN > positions.end(first_query);
    const uint32_t units = tiles + stage + Tile::kUnitsAt;
    counted.template advance<kN>(units + kN * 4, lane);
    float rescale[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const int query = lane_query + r * Tile::kWarps * 16;
      const LaneRows rows{{query, query + 8}, {head, head}};
      if (natural) {
        apply_both_units<kScoreTiles>(units, left[r].unit, lane, score[r]);
      } else {
        apply_key_units<kScoreTiles>(units, lane, score[r]);
      }
      if constexpr (kGeneral)
        shape_scores<kScoreTiles>(call.base, queries, positions.key_length, b, rows, key, lane, score[r]);
      if (partial) mask_positions<kScoreTiles>(positions, rows, key, lane, score[r]);
      if (natural) {
        softmax<true, kScoreTiles>(score[r], false, kFlashLog2E, state[r], rescale[r]);
      } else {
        scaled_softmax<kScoreTiles>(left[r].unit, score[r], state[r], rescale[r]);
      }
      if constexpr (kGeneral) {
        if (call.base.threshold != 0) drop<kScoreTiles>(call.base, b, rows, key, lane, score[r]);
      }
      counted.apply(units + kN * 4, lane, r, score[r], rescale[r]);
    }
    split_values<Tile>(opaque(values_at), stage, static_cast<int>(p.head_dim_v), score, rescale, out);
    if (two_stages) {
      stage = Tile::kStageBytes - stage;
    } else if (key + kN < end_key) {
      __syncthreads();  // every warp is done with this tile
      load(key + kN, stage);
    }
  }

  const OutputPlace place(p, call.base.q_tiles);
  const int head_dim_v = static_cast<int>(p.head_dim_v);
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = lane_query + r * Tile::kWarps * 16 + 8 * half;
      const float sum = quad_sum(state[r][half].sum);
      const bool empty = sum == 0;
      const float inverse = empty ? 0 : call.base.kept / sum * counted.of_row(r, half);
      if (query > last_query) continue;
      T* to = element<T>(p.out, place.s.out_offset + query * p.out.strides[1] + place.head * p.out.strides[2]);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        const int column = 8 * n + lane % 4 * 2;
        const float first = empty ? 0.0f : out[r][n][2 * half] * inverse;
        const float second = empty ? 0.0f : out[r][n][2 * half + 1] * inverse;
        if (sizeof(T) == 4 && call.base.aligned_out != 0 && column + 1 < head_dim_v) {
          *reinterpret_cast<float2*>(to + column) = make_float2(first, second);
          continue;
        }
        if (column < head_dim_v) to[column] = from_real<T>(first);
        if (column + 1 < head_dim_v) to[column + 1] = from_real<T>(second);
      }
      if (given(p.lse) && lane % 4 == 0) {
        const float maximum = state[r][half].maximum;
        const float lse = natural ? maximum + logf(sum) : scaled_log_sum_exp(maximum, left[r].unit[half], sum);
        *element<float>(p.lse, place.s.lse_offset + place.head * p.lse.strides[1] + query * p.lse.strides[2]) =
            empty ? -INFINITY : lse;
      }
    }
  }
}

template <typename T, int kDim, bool kGeneral>
cudaError_t launch_efficient_instance(EfficientCall& call, cudaStream_t stream) {
  using Tile = EfficientTile<kDim, sizeof(T) == 4, kGeneral>;
  call.base.q_tiles = ceil_div(call.base.p.seqlen_q, Tile::kM);
  const int64_t blocks = call.base.q_tiles * call.base.p.num_heads_q * call.base.p.batch;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  const auto limit = static_cast<size_t>(call.base.shared_limit);
  call.stages = Tile::kMayHaveOneStage && Tile::shared_bytes(2) > limit ? 1 : 2;
  const size_t shared = Tile::shared_bytes(call.stages);
  constinit static std::atomic<uint32_t> allowed{0};
  const auto kernel = efficient_forward<T, kDim, kGeneral>;
  return launch_with_shared(kernel, allowed, call.base.p.device_id, shared,
                            [&] { kernel<<<static_cast<unsigned>(blocks), Tile::kThreads, shared, stream>>>(call); });
}

template <typename T, bool kGeneral>
cudaError_t launch_efficient_width(EfficientCall& call, cudaStream_t stream) {
  switch (efficient_width(max_of(call.base.p.head_dim, call.base.p.head_dim_v))) {
    case 32:
      return launch_efficient_instance<T, 32, kGeneral>(call, stream);
    case 64:
      return launch_efficient_instance<T, 64, kGeneral>(call, stream);
    case 128:
      return launch_efficient_instance<T, 128, kGeneral>(call, stream);
    default:
      return launch_efficient_instance<T, 256, kGeneral>(call, stream);
  }
}

}  // namespace
}  // namespace attnmux
