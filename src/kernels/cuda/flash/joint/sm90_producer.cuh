// SPDX-License-Identifier: Apache-2.0
// The producer: one warp that keeps the copies of K and V ahead of the warpgroups that compute (algorithm 2 of the
// paper, its producer branch). V runs one step behind K, since a step multiplies K by Q before P by the V of the step
// before, across the edges of tiles too.
#pragma once

#include "kernels/cuda/flash/joint/sm90_announce.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tma.cuh"

namespace attnmux::joint {
namespace {

// Where the keys of a tile are.
struct Sm90Keys {
  int batch, head, row;        // coordinates in the tensors
  int valid_begin, valid_end;  // see Sm90Work
};

template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90Producer {
  using L = FlashSm90Layout<kTile>;
  const FlashSm90Call& call;
  FlashSm90Shared<kTile> shared;
  int lane, rank;  // in the warp; of the block in its cluster
  Ring<L::kStages> k_ring, v_ring;
  Ring<kTile.q_stages> q_ring;
  uint32_t landed = 0;  // a parity per stage
  int announcements = 0;
  // The V of this step is still to be copied, of the tile before; negative: none is.
  int lagging_step = -1;
  Sm90Keys lagging{};

  // A tile of K or V of kPages pages; all lanes call it and one copies. Each block of a cluster copies some of the
  // rows, for all of them.
  template <int kPages>
  __device__ void load(const TensorMap& map, uint32_t to, uint32_t barrier, const Tensor& t, const Sm90Keys& keys,
                       int step) {
    if (lane != 0) return;
    ptx::mbarrier_arrive_expect(barrier, kPages * L::kKvPage);
    constexpr int kRows = L::kN / kTile.cluster;
    const int row = keys.row + step * L::kN;
    const int h = t.strides[2] == 0 ? 0 : keys.head, batch = t.strides[0] == 0 ? 0 : keys.batch;
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

  // Announces what `write` writes, and copies the rows of Q of each group as soon as it has read those before; none
  // where `w` is null.
  template <typename Write>
  __device__ void load_q(const Sm90Work* w, const Write& write) {
    const uint32_t announcement = shared.announcement(announcements++);
#pragma unroll
    for (int group = 0; group < kTile.groups; ++group) {
      ptx::mbarrier_wait(shared.q_empty(q_ring.stage, group), q_ring.parity ^ 1);
      if (lane != 0) continue;
      if (group == 0) write(announcement);
      const uint32_t full = shared.q_full(q_ring.stage, group);
      if (w == nullptr) {
        ptx::mbarrier_arrive(full);
      } else {
        load_q_rows(*w, group, full);
      }
    }
    q_ring.next();
  }
  __device__ void load_q_rows(const Sm90Work& w, int group, uint32_t full) const {
    constexpr uint32_t kBytes = 64 * 128;
    const Tensor& q = call.p.q;
    ptx::mbarrier_arrive_expect(full, L::kPages * kBytes);
#pragma unroll
    for (int i = 0; i < L::kPages; ++i) {
      ptx::load_box(shared.q(q_ring.stage) + i * L::kQPage + group * kBytes, call.q_map, full, i * 64,
                    w.sequence.q_row + w.first_query + group * 64, q.strides[2] == 0 ? 0 : w.head,
                    q.strides[0] == 0 ? 0 : w.sequence.batch, ptx::kEvictFirst);
    }
  }

  __device__ void load_k(const Sm90Keys& keys, int step) {
    ptx::mbarrier_wait(shared.k_empty(k_ring.stage), k_ring.parity ^ 1);
    load<L::kPages>(call.k_map, shared.k(k_ring.stage), shared.k_full(k_ring.stage), call.p.k, keys, step);
    k_ring.next();
  }

  __device__ void load_v(const Sm90Keys& keys, int step) {
    ptx::mbarrier_wait(shared.v_empty(v_ring.stage), v_ring.parity ^ 1);
    const int first = step * L::kN;
    // Rows behind the tensor's last read as zero.
    const int rows = static_cast<int>(call.p.v.shape[1]) - keys.row;
    const bool edge = first < keys.valid_begin || min(first + L::kN, rows) > keys.valid_end;
    const uint32_t to = shared.v(v_ring.stage), full = shared.v_full(v_ring.stage);
    const uint32_t landed_here = shared.v_landed(v_ring.stage);
    load<L::kPagesV>(call.v_map, to, edge ? landed_here : full, call.p.v, keys, step);
    if (edge) {
      ptx::mbarrier_wait(landed_here, landed >> v_ring.stage & 1);
      landed ^= 1u << v_ring.stage;
      clear_edge(keys, to, first);
      if (lane == 0) ptx::mbarrier_arrive(full);
    }
    v_ring.next();
  }

  // Rows of V that nobody attends become zero: they may hold NaN, and 0·NaN is NaN.
  __device__ void clear_edge(const Sm90Keys& keys, uint32_t tile, int first) const {
    for (int row = lane / 8; row < L::kN; row += 4) {
      const int key = first + row;
      const bool keep = key >= keys.valid_begin && key < keys.valid_end;
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

  __device__ void load_lagging_v() {
    if (lagging_step >= 0) load_v(lagging, lagging_step);
    lagging_step = -1;
  }

  __device__ void tile(const Sm90Work& w, const Sm90Turn& turn) {
    // A tile without queries has no outputs; one without keys has zeros.
    if (w.first_query >= w.sequence.queries) return;
    const auto write = [&](uint32_t to) { announce(to, w, turn); };
    if (w.empty()) {
      load_lagging_v();
      load_q(nullptr, write);
      return;
    }
    // K first, then the V of the tile before: their places are free before that of Q, which the last step of the tile
    // before still reads.
    const int sharing = static_cast<int>(call.p.num_heads_q / call.p.num_heads_kv);
    const Sm90Keys keys{w.sequence.batch, w.head / sharing, w.sequence.kv_row, w.valid_begin, w.valid_end};
    load_k(keys, w.end_step - 1);
    load_lagging_v();
    load_q(&w, write);
    for (int step = w.end_step - 1; step > w.first_step; --step) {
      load_k(keys, step - 1);
      load_v(keys, step);
    }
    lagging = keys;
    lagging_step = w.first_step;
  }

  __device__ void end() {
    load_lagging_v();
    load_q(nullptr, [](uint32_t to) { announce_end(to); });
  }
};

}  // namespace
}  // namespace attnmux::joint
