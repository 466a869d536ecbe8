// SPDX-License-Identifier: Apache-2.0
// The producer: one warp that keeps the copies of K and V ahead of the warpgroups that compute (algorithm 2 of the
// paper, its producer branch). V runs one step behind K, since a step multiplies K by Q before P by the V of the step
// before.
#pragma once

#include "kernels/cuda/flash/sm90_schedule.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tma.cuh"

namespace attnmux {
namespace {

template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
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
    const int batch = q.strides[0] == 0 ? 0 : w.sequence.batch;
    int row = w.sequence.q_row + w.first_query, head = q.strides[2] == 0 ? 0 : w.head;
    if constexpr (!flash_sm90_is_streamed(kFeatures)) {
      if (call.pack > 1) {  // heads are the rows of the map
        head = w.sequence.q_row + w.first_query / call.pack;
        row = w.head;
      }
    }
    ptx::mbarrier_arrive_expect(shared.q_full(), static_cast<uint32_t>(L::kPages * call.tile_rows * 128));
#pragma unroll
    for (int i = 0; i < L::kPages; ++i) {
      ptx::load_box(shared.q() + i * L::kQPage, call.q_map, shared.q_full(), i * 64, row, head, batch,
                    ptx::kEvictFirst);
    }
  }

  // `note` stands beside the tile for consumers that are told their steps.
  __device__ void load_k(const Sm90Work& w, int step, uint32_t note = 0) {
    ptx::mbarrier_wait(shared.k_empty(k_ring.stage), k_ring.parity ^ 1);
    if constexpr (flash_sm90_is_streamed(kFeatures)) {
      if (lane == 0) ptx::store_shared_4(shared.k_note(k_ring.stage), note);
    }
    load<L::kPages>(call.k_map, shared.k(k_ring.stage), shared.k_full(k_ring.stage), call.p.k,
                    w.sequence.kv_row + step * L::kN, kv_head(w), w.sequence.batch);
    k_ring.next();
  }

  // `padding`: it hides keys of this step.
  __device__ void load_v(const Sm90Work& w, int step, bool padding = false) {
    ptx::mbarrier_wait(shared.v_empty(v_ring.stage), v_ring.parity ^ 1);
    const int first = step * L::kN;
    // Rows behind the tensor's last read as zero.
    const int rows = static_cast<int>(call.p.v.shape[1]) - w.sequence.kv_row;
    const bool edge = padding || first < w.valid_begin || min(first + L::kN, rows) > w.valid_end;
    const uint32_t to = shared.v(v_ring.stage), full = shared.v_full(v_ring.stage);
    const uint32_t landed_here = shared.v_landed(v_ring.stage);
    load<L::kPagesV>(call.v_map, to, edge ? landed_here : full, call.p.v, w.sequence.kv_row + first, kv_head(w),
                     w.sequence.batch);
    if (edge) {
      ptx::mbarrier_wait(landed_here, landed >> v_ring.stage & 1);
      landed ^= 1u << v_ring.stage;
      clear_edge(w, to, first, padding);
      if (lane == 0) ptx::mbarrier_arrive(full);
    }
    v_ring.next();
  }

  // Rows of V that nobody attends become zero: they may hold NaN, and 0·NaN is NaN.
  __device__ void clear_edge(const Sm90Work& w, uint32_t tile, int first, bool padding) const {
    for (int row = lane / 8; row < L::kN; row += 4) {
      const int key = first + row;
      bool keep = key >= w.valid_begin && key < w.valid_end;
      if constexpr (flash_sm90_is_streamed(kFeatures)) {
        const Tensor& t = call.p.key_padding;
        if (keep && padding) keep = attends(t, w.b * t.strides[0] + key * t.strides[1]);
      }
      if (keep) continue;
#pragma unroll
      for (int page = 0; page < L::kPagesV; ++page) {
        const uint32_t to = tile + page * L::kKvPage + static_cast<uint32_t>(row * 128 + lane % 8 * 16);
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
      }
    }
    ptx::fence_proxy_async();
    __syncwarp();
  }

  __device__ int kv_head(const Sm90Work& w) const {
    return w.head / static_cast<int>(call.p.num_heads_q / call.p.num_heads_kv);
  }

  __device__ void tile(const Sm90Work& w) {
    if (w.empty()) return;
    // K first: its place is free before that of Q, which the last step of the tile before still reads.
    load_k(w, w.end_step - 1);
    load_q(w);
    for (int step = w.end_step - 1; step > w.first_step; --step) {
      load_k(w, step - 1);
      load_v(w, step);
    }
    load_v(w, w.first_step);
  }
};

}  // namespace
}  // namespace attnmux
