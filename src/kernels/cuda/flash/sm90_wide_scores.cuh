// SPDX-License-Identifier: Apache-2.0
// The warpgroup that computes scores and probabilities of 64 queries.
#pragma once

#include "kernels/cuda/flash/sm90_softmax.cuh"
#include "kernels/cuda/flash/sm90_wide_tile.cuh"
#include "kernels/cuda/ptx/stmatrix.cuh"
#include "kernels/cuda/ptx/tma.cuh"

namespace attnmux {
namespace {

__device__ inline void store_shared_float2(uint32_t to, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x), "f"(y) : "memory");
}

template <typename T, FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90WideScores {
  using L = FlashSm90Layout<kTile>;
  static constexpr int kN = L::kN;

  const FlashSm90Call& call;
  Sm90WideShared<kTile> shared;
  int lane, lane_row;  // of the warp; of the tile's queries, and 8 further
  uint32_t p_row;      // where stmatrix writes, within a page of P
  uint64_t q_factor, k_factor;
  Ring<L::kStages> k_ring;
  Ring<1> q_ring;
  Ring<2> p_ring;

  float score[kN / 2];
  Sm90Row row[2];
  float rescale[2];

  __device__ Sm90WideScores(const FlashSm90Call& c, Sm90WideShared<kTile> s, int thread)
      : call(c), shared(s), lane(thread % 32), lane_row(thread / 32 * 16 + thread % 32 / 4) {
    p_row = static_cast<uint32_t>(thread / 32 * 16 + lane % 16) * 128;
    q_factor = ptx::matrix_descriptor(shared.q(), 16);
    k_factor = ptx::matrix_descriptor(shared.k(0), 16);
  }

  // S = Q·Kᵀ, chunk by chunk; a chunk is handed back when the next one is under way.
  __device__ void products(int pages) {
#pragma unroll 1
    for (int page = 0; page < pages; ++page) {
      ptx::mbarrier_wait(shared.k_full(k_ring.stage), k_ring.parity);
      const uint64_t q = q_factor + static_cast<uint32_t>(page) * (L::kQPage / 16);
      const uint64_t k = k_factor + static_cast<uint32_t>(k_ring.stage) * (L::kKBytes / 16);
      ptx::wgmma_fence();
#pragma unroll
      for (int i = 0; i < 4; ++i) ptx::wgmma_shared<T, kN>(score, q + 2 * i, k + 2 * i, page + i > 0);
      ptx::wgmma_commit();
      if (page > 0) {
        ptx::wgmma_wait<1>();
        release_chunk<kTile.cluster>(shared.k_empty(k_ring.stage == 0 ? L::kStages - 1 : k_ring.stage - 1), lane);
      }
      k_ring.next();
    }
    ptx::wgmma_wait<0>();
    ptx::pin(score);
    release_chunk<kTile.cluster>(shared.k_empty(k_ring.stage == 0 ? L::kStages - 1 : k_ring.stage - 1), lane);
  }

  // Some query of the tile does not keep some key of the step.
  __device__ bool partial(const Sm90Work& w, int step) const {
    return w.positions.begin(w.first_query + L::kM - 1) > step * kN || w.positions.end(w.first_query) < (step + 1) * kN;
  }

  __device__ void softmax(const Sm90Work& w, int step) {
    const int query = w.first_query + lane_row, key = step * kN + lane % 4 * 2;
    if (partial(w, step)) mask_products(w.positions, query, query + 8, key, score);
    const bool renewed = softmax_step<kTile.lazy, false>(score, call.scale_log2, row, rescale);
    if (!renewed) rescale[0] = rescale[1] = 1;
  }

  // Two floats for each row, to go with the next slot of P.
  __device__ void tell_rows(float (&first)[2], float (&second)[2]) {
    if (lane % 4 != 0) return;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      store_shared_float2(shared.row(p_ring.stage, lane_row + 8 * half), first[half], second[half]);
  }

  __device__ void hand_on_probabilities() {
    ptx::mbarrier_wait(shared.p_empty(p_ring.stage), p_ring.parity ^ 1);
    const uint32_t to = shared.p(p_ring.stage) + p_row;
#pragma unroll
    for (int k = 0; k < kN / 16; ++k) {
      uint32_t word[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) word[i] = ptx::pack<T>(score[8 * k + 2 * i], score[8 * k + 2 * i + 1]);
      const uint32_t piece = static_cast<uint32_t>(k % 4 * 2 + lane / 16) ^ static_cast<uint32_t>(lane % 8);
      ptx::stmatrix_x4(to + k / 4 * L::kQPage + piece * 16, word);
    }
    tell_rows(rescale, rescale);
    ptx::fence_proxy_async();
    announce();
  }

  // Maximum and sum of each row, in a slot of their own.
  __device__ void hand_on_rows() {
    ptx::mbarrier_wait(shared.p_empty(p_ring.stage), p_ring.parity ^ 1);
    float maximum[2], sum[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      maximum[half] = row[half].maximum;
      sum[half] = row[half].sum;
      sum[half] += __shfl_xor_sync(0xFFFFFFFFu, sum[half], 1);
      sum[half] += __shfl_xor_sync(0xFFFFFFFFu, sum[half], 2);
    }
    tell_rows(maximum, sum);
    announce();
  }
  __device__ void announce() {
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(shared.p_full(p_ring.stage));
    p_ring.next();
  }

  __device__ void tile(const Sm90Work& w) {
    row[0] = row[1] = {};
    if (!w.empty()) {
      const int pages = (static_cast<int>(call.p.head_dim) + 63) / 64;
      ptx::mbarrier_wait(shared.q_full(), q_ring.parity);
      q_ring.next();
#pragma unroll 1
      for (int step = w.end_step - 1; step >= w.first_step; --step) {
        products(pages);
        if (step == w.first_step && lane == 0) ptx::mbarrier_arrive(shared.q_empty());
        softmax(w, step);
        hand_on_probabilities();
      }
    }
    hand_on_rows();
  }
};

}  // namespace
}  // namespace attnmux
