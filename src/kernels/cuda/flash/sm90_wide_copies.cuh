// SPDX-License-Identifier: Apache-2.0
// The warps that copy: one has Q and the chunks of K, one those of V, since the two are needed at different times.
#pragma once

#include "kernels/cuda/flash/sm90_wide_tile.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tma.cuh"

namespace attnmux {
namespace {

// Coordinates of a head in a tensor; a broadcast dimension has only 0.
struct Sm90Head {
  int head, batch;
  __device__ Sm90Head(const Tensor& t, int h, int b)
      : head(t.strides[2] == 0 ? 0 : h), batch(t.strides[0] == 0 ? 0 : b) {}
};

__device__ inline int kv_head(const Problem& p, int head) {
  return head / static_cast<int>(p.num_heads_q / p.num_heads_kv);
}

// A box into this block, or into all blocks of the cluster.
template <int kCluster>
__device__ inline void load_shared_box(uint32_t to, const TensorMap& map, uint32_t barrier, int column, int row,
                                       const Sm90Head& at) {
  if constexpr (kCluster == 1) {
    ptx::load_box(to, map, barrier, column, row, at.head, at.batch, ptx::kEvictLast);
  } else {
    ptx::load_box_in_cluster(to, map, barrier, column, row, at.head, at.batch, ptx::kEvictLast, kCluster);
  }
}

template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90WideKeys {
  using L = FlashSm90Layout<kTile>;
  const FlashSm90Call& call;
  Sm90WideShared<kTile> shared;
  int lane, rank;  // in the warp; of the block in its cluster
  Ring<L::kStages> ring;
  Ring<1> q_ring;

  __device__ int pages() const { return (static_cast<int>(call.p.head_dim) + 63) / 64; }

  __device__ void load_q(const Sm90Work& w) {
    ptx::mbarrier_wait(shared.q_empty(), q_ring.parity ^ 1);
    q_ring.next();
    if (lane != 0) return;
    const Sm90Head at(call.p.q, w.head, w.sequence.batch);
    ptx::mbarrier_arrive_expect(shared.q_full(), static_cast<uint32_t>(pages()) * L::kQPage);
    for (int i = 0; i < pages(); ++i) {
      ptx::load_box(shared.q() + static_cast<uint32_t>(i) * L::kQPage, call.q_map, shared.q_full(), i * 64,
                    w.sequence.q_row + w.first_query, at.head, at.batch, ptx::kEvictFirst);
    }
  }

  // 64 columns of the keys of a step. Each block of a cluster copies some of the rows, for all of them.
  __device__ void load_chunk(const Sm90Work& w, int step, int page) {
    const int stage = ring.stage;
    ptx::mbarrier_wait(shared.k_empty(stage), ring.parity ^ 1);
    ring.next();
    if (lane != 0) return;
    constexpr int kRows = L::kN / kTile.cluster;
    ptx::mbarrier_arrive_expect(shared.k_full(stage), L::kKBytes);
    load_shared_box<kTile.cluster>(shared.k(stage) + static_cast<uint32_t>(rank * kRows) * 128, call.k_map,
                                   shared.k_full(stage), page * 64, w.sequence.kv_row + step * L::kN + rank * kRows,
                                   Sm90Head(call.p.k, kv_head(call.p, w.head), w.sequence.batch));
  }

  __device__ void tile(const Sm90Work& w) {
    for (int step = w.end_step - 1; step >= w.first_step; --step) {
      for (int page = 0; page < pages(); ++page) {
        load_chunk(w, step, page);
        // Behind the first chunk, whose place is free before that of Q.
        if (step == w.end_step - 1 && page == 0) load_q(w);
      }
    }
  }
};

template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90WideValues {
  using L = FlashSm90Layout<kTile>;
  const FlashSm90Call& call;
  Sm90WideShared<kTile> shared;
  int lane, rank;
  Ring<L::kStages> ring;
  uint32_t landed = 0;  // a parity per stage

  // All columns of kChunkKeys keys. Each block of a cluster copies some of the pages, for all of them.
  __device__ void load_chunk(const Sm90Work& w, int first) {
    const int stage = ring.stage;
    ptx::mbarrier_wait(shared.v_empty(stage), ring.parity ^ 1);
    ring.next();
    // Rows behind the tensor's last read as zero.
    const int rows = static_cast<int>(call.p.v.shape[1]) - w.sequence.kv_row;
    const bool edge = first < w.valid_begin || min(first + L::kChunkKeys, rows) > w.valid_end;
    const uint32_t barrier = edge ? shared.v_landed(stage) : shared.v_full(stage);
    if (lane == 0) {
      const Sm90Head at(call.p.v, kv_head(call.p, w.head), w.sequence.batch);
      ptx::mbarrier_arrive_expect(barrier, L::kVBytes);
      for (int i = rank; i < L::kPagesV; i += kTile.cluster) {
        load_shared_box<kTile.cluster>(shared.v(stage) + static_cast<uint32_t>(i) * L::kVPage, call.v_map, barrier,
                                       i * 64, w.sequence.kv_row + first, at);
      }
    }
    __syncwarp();
    if (!edge) return;
    ptx::mbarrier_wait(barrier, landed >> stage & 1);
    landed ^= 1u << stage;
    clear_edge(w, shared.v(stage), first);
    if (lane == 0) ptx::mbarrier_arrive(shared.v_full(stage));
  }

  // Rows of V that nobody attends become zero: they may hold NaN, and 0·NaN is NaN.
  __device__ void clear_edge(const Sm90Work& w, uint32_t chunk, int first) const {
    for (int row = lane / 8; row < L::kChunkKeys; row += 4) {
      const int key = first + row;
      if (key >= w.valid_begin && key < w.valid_end) continue;
#pragma unroll
      for (int page = 0; page < L::kPagesV; ++page) {
        const uint32_t to = chunk + page * L::kVPage + static_cast<uint32_t>(row * 128 + lane % 8 * 16);
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
      }
    }
    ptx::fence_proxy_async();
    __syncwarp();
  }

  __device__ void tile(const Sm90Work& w) {
    for (int step = w.end_step - 1; step >= w.first_step; --step) {
      for (int key = 0; key < L::kN; key += L::kChunkKeys) load_chunk(w, step * L::kN + key);
    }
  }
};

}  // namespace
}  // namespace attnmux
