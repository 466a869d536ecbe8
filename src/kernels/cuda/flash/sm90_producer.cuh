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
  int lane, rank;  // in the warp; of the block in its cluster
  Ring<L::kStages> k_ring, v_ring;
  Ring<1> q_ring;
  uint32_t landed = 0;  // a parity per stage

  // A tile of K or V of kPages pages; all lanes call it and one copies. Each block of a cluster copies some of the
  // rows, for all of them.
  template <int kPages>
  __device__ void load(const TensorMap& map, uint32_t to, uint32_t barrier, const Tensor& t, int row, int head, int b) {
    if (lane != 0) return;
    ptx::mbarrier_arrive_expect(barrier, kPages * L::kKvPage);
    constexpr int kRows = L::kN / kTile.cluster;
    const int h = t.strides[2] == 0 ? 0 : head, batch = t.strides[0] == 0 ? 0 : b;
#pragma unroll
    for (int i = 0; i < kPages; ++i) {
      const uint32_t page = to + i * L::kKvPage + rank * (kRows * 128);
      if constexpr (kTile.cluster == 1) {
        ptx::load_box(page, map, barrier, i * 64, row, h, batch, ptx::kEvictLast);
      } else {
        ptx::load_box_in_cluster(page, map, barrier, i * 64, row + rank * kRows, h, batch, ptx::kEvictLast,
                                 kTile.cluster);
      }
    }
  }

  __device__ void load_q(const Sm90Work& w) {
    ptx::mbarrier_wait(shared.q_empty(), q_ring.parity ^ 1);
    q_ring.next();
    if (lane != 0) return;
    const Tensor& q = call.p.q;
    ptx::mbarrier_arrive_expect(shared.q_full(), L::kQBytes);
#pragma unroll
    for (int i = 0; i < L::kPages; ++i) {
      ptx::load_box(shared.q() + i * L::kQPage, call.q_map, shared.q_full(), i * 64, w.first_query,
                    q.strides[2] == 0 ? 0 : w.head, q.strides[0] == 0 ? 0 : w.b, ptx::kEvictFirst);
    }
  }

  __device__ void load_k(const Sm90Work& w, int step) {
    ptx::mbarrier_wait(shared.k_empty(k_ring.stage), k_ring.parity ^ 1);
    load<L::kPages>(call.k_map, shared.k(k_ring.stage), shared.k_full(k_ring.stage), call.p.k, step * L::kN, kv_head(w),
                    w.b);
    k_ring.next();
  }

  __device__ void load_v(const Sm90Work& w, int step) {
    ptx::mbarrier_wait(shared.v_empty(v_ring.stage), v_ring.parity ^ 1);
    const int first = step * L::kN;
    const int end = min(first + L::kN, static_cast<int>(call.p.seqlen_kv));
    const bool edge = first < w.valid_begin || end > w.valid_end;
    const uint32_t to = shared.v(v_ring.stage), full = shared.v_full(v_ring.stage);
    const uint32_t landed_here = shared.v_landed(v_ring.stage);
    load<L::kPagesV>(call.v_map, to, edge ? landed_here : full, call.p.v, first, kv_head(w), w.b);
    if (edge) {
      ptx::mbarrier_wait(landed_here, landed >> v_ring.stage & 1);
      landed ^= 1u << v_ring.stage;
      clear_edge(to, w.valid_begin - first, w.valid_end - first);
      if (lane == 0) ptx::mbarrier_arrive(full);
    }
    v_ring.next();
  }

  // Rows of V that nobody attends become zero: they may hold NaN, and 0·NaN is NaN.
  __device__ void clear_edge(uint32_t tile, int begin, int end) {
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
