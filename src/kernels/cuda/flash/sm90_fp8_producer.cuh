// SPDX-License-Identifier: Apache-2.0
// The producer of the kernel of sm90_fp8.h: one warp that keeps the copies of K and transposed V ahead of the
// warpgroups that compute. V runs one step behind K, as in sm90_producer.cuh; it has no edges, which the copy of V has
// dealt with.
#pragma once

#include "kernels/cuda/flash/sm90_fp8_tile.cuh"
#include "kernels/cuda/ptx/dependent_launch.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tma.cuh"

namespace attnmux {
namespace {

// Addresses of barriers and tiles of a block.
template <FlashSm90Tile kTile>
struct Sm90Fp8Shared {
  using L = FlashSm90Layout<kTile>;
  uint32_t base;
  __device__ uint32_t q() const { return base + L::kQ; }
  __device__ uint32_t k(int stage) const { return base + L::kK + static_cast<uint32_t>(stage) * L::kKBytes; }
  __device__ uint32_t v(int stage) const { return base + L::kV + static_cast<uint32_t>(stage) * L::kVBytes; }
  __device__ uint32_t word(int group) const { return base + 32 + static_cast<uint32_t>(group) * 4; }
  // "full" ends a phase when a tile has arrived, "empty" when every warp has read it.
  __device__ uint32_t q_full() const { return base; }
  __device__ uint32_t q_empty() const { return base + 8; }
  __device__ uint32_t k_full(int stage) const { return base + 64 + static_cast<uint32_t>(stage) * 32; }
  __device__ uint32_t k_empty(int stage) const { return k_full(stage) + 8; }
  __device__ uint32_t v_full(int stage) const { return k_full(stage) + 16; }
  __device__ uint32_t v_empty(int stage) const { return k_full(stage) + 24; }
};

template <FlashSm90Tile kTile>
struct Sm90Fp8Producer {
  using L = FlashSm90Layout<kTile>;
  const FlashSm90Call& call;
  Sm90Fp8Shared<kTile> shared;
  int lane;
  Ring<L::kStages> k_ring, v_ring;
  Ring<1> q_ring;

  __device__ int kv_head(const Sm90Work& w) const {
    return w.head / static_cast<int>(call.p.num_heads_q / call.p.num_heads_kv);
  }

  // Rows of q or k; a dimension that is broadcast has coordinate 0.
  __device__ void load(const Tensor& t, const TensorMap& map, uint32_t to, uint32_t page_bytes, uint32_t barrier,
                       int row, int head, int b, uint64_t policy) {
    if (lane != 0) return;
    ptx::mbarrier_arrive_expect(barrier, L::kPages * page_bytes);
#pragma unroll
    for (int i = 0; i < L::kPages; ++i) {
      ptx::load_box(to + static_cast<uint32_t>(i) * page_bytes, map, barrier, i * 128, row,
                    t.strides[2] == 0 ? 0 : head, t.strides[0] == 0 ? 0 : b, policy);
    }
  }

  __device__ void load_q(const Sm90Work& w) {
    ptx::mbarrier_wait(shared.q_empty(), q_ring.parity ^ 1);
    q_ring.next();
    load(call.p.q, call.q_map, shared.q(), L::kQPage, shared.q_full(), w.sequence.q_row + w.first_query, w.head,
         w.sequence.batch, ptx::kEvictFirst);
  }

  __device__ void load_k(const Sm90Work& w, int step) {
    ptx::mbarrier_wait(shared.k_empty(k_ring.stage), k_ring.parity ^ 1);
    load(call.p.k, call.k_map, shared.k(k_ring.stage), L::kKPage, shared.k_full(k_ring.stage),
         w.sequence.kv_row + step * L::kN, kv_head(w), w.sequence.batch, ptx::kEvictLast);
    k_ring.next();
  }

  __device__ void load_v(const Sm90Work& w, int step) {
    const uint32_t full = shared.v_full(v_ring.stage);
    ptx::mbarrier_wait(shared.v_empty(v_ring.stage), v_ring.parity ^ 1);
    ptx::wait_for_kernel_before();
    if (lane == 0) {
      ptx::mbarrier_arrive_expect(full, L::kVBytes);
      const int key = first_value(w.sequence, given(call.p.cu_seqlens_q), w.b) + step * L::kN;
      ptx::load_box(shared.v(v_ring.stage), call.v_map, full, key, 0, kv_head(w), w.sequence.batch, ptx::kEvictLast);
    }
    v_ring.next();
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
