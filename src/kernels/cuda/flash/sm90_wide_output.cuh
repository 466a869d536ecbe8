// SPDX-License-Identifier: Apache-2.0
// The two warpgroups that sum up the output of 64 queries, half of the columns each.
#pragma once

#include "kernels/cuda/flash/sm90_rows.cuh"
#include "kernels/cuda/flash/sm90_wide_tile.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"

namespace attnmux {
namespace {

template <typename T, FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90WideOutput {
  using L = FlashSm90Layout<kTile>;
  // ptxas takes no product whose result alone needs the 128 registers that threads start with.
  static constexpr int kParts = L::kColumns > 192 ? 2 : 1, kPartColumns = L::kColumns / kParts;
  static constexpr int kPartCount = kPartColumns / 2, kCount = kParts * kPartCount;  // outputs of a thread

  const FlashSm90Call& call;
  Sm90WideShared<kTile> shared;
  int rank, half;      // of the block in its cluster; of the columns
  int lane, lane_row;  // of the warp; of the tile's queries, and 8 further
  uint64_t p_factor, v_factor;
  Ring<L::kStages> v_ring;
  Ring<2> p_ring;

  float out[kParts][kPartCount];
  Sm90Sums of;

  __device__ Sm90WideOutput(const FlashSm90Call& c, Sm90WideShared<kTile> s, int r, int h, int thread)
      : call(c), shared(s), rank(r), half(h), lane(thread % 32), lane_row(thread / 32 * 16 + thread % 32 / 4) {
    p_factor = ptx::matrix_descriptor(shared.p(0), 16);
    v_factor = ptx::matrix_descriptor(shared.v(0) + static_cast<uint32_t>(h) * (L::kPagesV / 2 * L::kVPage), L::kVPage);
  }

  __device__ float& output(int i) { return out[i / kPartCount][i % kPartCount]; }

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) output(i) = 0;
  }

  __device__ void wait_rows(float2 (&of)[2]) {
    ptx::mbarrier_wait(shared.p_full(p_ring.stage), p_ring.parity);
#pragma unroll
    for (int i = 0; i < 2; ++i) of[i] = ptx::load_shared_float2(shared.row(p_ring.stage, lane_row + 8 * i));
  }
  __device__ void release_rows() {
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(shared.p_empty(p_ring.stage));
    p_ring.next();
  }
  __device__ void release_last_chunk() {
    release_chunk<kTile.cluster>(shared.v_empty(v_ring.stage == 0 ? L::kStages - 1 : v_ring.stage - 1), lane);
  }

  // O = O·rescale + P·V, chunk by chunk; a chunk is handed back when the next one is under way.
  __device__ void step() {
    float2 rescale[2];
    wait_rows(rescale);
    if (__any_sync(0xFFFFFFFFu, rescale[0].x != 1 || rescale[1].x != 1)) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) output(i) *= rescale[i / 2 % 2].x;
    }
    const uint64_t p = p_factor + static_cast<uint32_t>(p_ring.stage) * (L::kPBytes / 16);
#pragma unroll 1
    for (int chunk = 0; chunk < L::kN / L::kChunkKeys; ++chunk) {
      ptx::mbarrier_wait(shared.v_full(v_ring.stage), v_ring.parity);
      const uint32_t page = static_cast<uint32_t>(chunk) / 4, at = static_cast<uint32_t>(chunk) % 4 * 2;
      ptx::wgmma_fence();
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        ptx::wgmma_shared_columns<T, kPartColumns>(
            out[part], p + page * (L::kQPage / 16) + at,
            v_factor + static_cast<uint32_t>(v_ring.stage) * (L::kVBytes / 16) +
                static_cast<uint32_t>(part) * (kPartColumns / 64 * L::kVPage / 16));
      }
      ptx::wgmma_commit();
      if (chunk > 0) {
        ptx::wgmma_wait<1>();
        release_last_chunk();
      }
      v_ring.next();
    }
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int part = 0; part < kParts; ++part) ptx::pin(out[part]);
    release_last_chunk();
    release_rows();
  }

  __device__ void tile(const Sm90Work& w) {
    clear();
#pragma unroll 1
    for (int i = w.end_step - w.first_step; i > 0; --i) step();
    float2 told[2];
    wait_rows(told);
    release_rows();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      of.maximum[i] = told[i].x;
      of.sum[i] = told[i].y;
    }
  }

  __device__ void finish(const Sm90Turn& turn) {
    const auto output = [this](int i) -> float& { return this->output(i); };
    if (kFeatures == FlashSm90Features::kPlain && turn.pieces > 1 &&
        !join_rows<kCount>(call, turn, {rank, kTile.cluster, half, 2}, shared.word(half),
                           1 + static_cast<uint32_t>(half), call.scale_log2, of, output))
      return;
    store_rows<T, L::kColumns>(
        call, locate<kTile, kFeatures>(call, turn.place, rank), lane_row, half * L::kColumns, 1, of, output,
        [this](float maximum, float sum) { return log_sum_exp<kFeatures>(maximum, sum, call.scale_log2); });
  }
};

}  // namespace
}  // namespace attnmux
