// SPDX-License-Identifier: Apache-2.0
// The producer: one warp that keeps the copies of K and V ahead of the warpgroups that compute (algorithm 2 of the
// paper, its producer branch). V runs one step behind K, since a step multiplies K by Q before P by the V of the step
// before.
#pragma once

#include "kernels/cuda/flash/sm90_schedule.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tma.cuh"

namespace attnmux {
namespace {

template <FlashSm90Tile kTile>
struct Sm90Producer {
  using L = FlashSm90Layout<kTile>;
  const FlashSm90Call& call;
  FlashSm90Shared<kTile> shared;
  int lane;
  Ring<L::kStages> k_ring, v_ring;
  Ring<1> q_ring, landed;

  // A tile of kPages pages; all lanes call it and one copies.
  template <int kPages>
  __device__ void load(const TensorMap& map, uint32_t to, uint32_t page, uint32_t barrier, const Tensor& t, int row,
                       int head, int b, uint64_t policy) {
    if (lane != 0) return;
    ptx::mbarrier_arrive_expect(barrier, kPages * page);
#pragma unroll
    for (int i = 0; i < kPages; ++i) {
      ptx::load_box(to + i * page, map, barrier, i * 64, row, t.strides[2] == 0 ? 0 : head, t.strides[0] == 0 ? 0 : b,
                    policy);
    }
  }

  __device__ void load_q(const Sm90Work& w) {
    ptx::mbarrier_wait(shared.q_empty(), q_ring.parity ^ 1);
    q_ring.next();
    load<L::kPages>(call.q_map, shared.q(), L::kQPage, shared.q_full(), call.p.q, w.first_query, w.head, w.b,
                    ptx::kEvictFirst);
  }

  __device__ void load_k(const Sm90Work& w, int step) {
    ptx::mbarrier_wait(shared.k_empty(k_ring.stage), k_ring.parity ^ 1);
    load<L::kPages>(call.k_map, shared.k(k_ring.stage), L::kKvPage, shared.k_full(k_ring.stage), call.p.k, step * L::kN,
                    kv_head(w), w.b, ptx::kEvictLast);
    k_ring.next();
  }

  __device__ void load_v(const Sm90Work& w, int step) {
    ptx::mbarrier_wait(shared.v_empty(v_ring.stage), v_ring.parity ^ 1);
    const int first = step * L::kN;
    const int end = min(first + L::kN, static_cast<int>(call.p.seqlen_kv));
    const bool edge = first < w.valid_begin || end > w.valid_end;
    const uint32_t to = shared.v(v_ring.stage), full = shared.v_full(v_ring.stage);
    load<L::kPagesV>(call.v_map, to, L::kKvPage, edge ? shared.v_landed() : full, call.p.v, first, kv_head(w), w.b,
                     ptx::kEvictLast);
    if (edge) {
      clear_edge(to, w.valid_begin - first, w.valid_end - first);
      if (lane == 0) ptx::mbarrier_arrive(full);
    }
    v_ring.next();
  }

  // Rows of V that nobody attends become zero: they may hold NaN, and 0·NaN is NaN.
  __device__ void clear_edge(uint32_t tile, int begin, int end) {
    ptx::mbarrier_wait(shared.v_landed(), landed.parity);
    landed.next();
    for (int piece = lane; piece < L::kPagesV * L::kN * 8; piece += 32) {
      const int row = piece / 8 % L::kN;
      if (row >= begin && row < end) continue;
      asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(tile + static_cast<uint32_t>(piece) * 16), "r"(0)
                   : "memory");
    }
    ptx::fence_proxy_async();
    __syncwarp();
  }

  __device__ int kv_head(const Sm90Work& w) const {
    return w.head / static_cast<int>(call.p.num_heads_q / call.p.num_heads_kv);
  }

  __device__ void tile(const Sm90Work& w) {
    if (w.empty()) return;
    load_q(w);
    load_k(w, w.end_step - 1);
    for (int step = w.end_step - 1; step > w.first_step; --step) {
      load_k(w, step - 1);
      load_v(w, step);
    }
    load_v(w, w.first_step);
  }
};

}  // namespace
}  // namespace attnmux
