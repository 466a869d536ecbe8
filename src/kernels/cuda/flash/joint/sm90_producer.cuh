// SPDX-License-Identifier: Apache-2.0
// The producer: one warp that keeps the copies of K and V ahead of the warpgroups that compute (algorithm 2 of the
// paper, its producer branch). V runs one step behind K, since a step multiplies K by Q before P by the V of the step
// before, across the edges of tiles too.
#pragma once

#include "kernels/cuda/flash/joint/sm90_announce.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tma.cuh"

namespace attnmux::joint {
namespace {

// Where the keys of a tile are.
struct Sm90Keys {
  int b, head, row;            // batch entry; coordinates in the tensors
  int valid_begin, valid_end;  // see Sm90Work
};

// The steps of a tile, from the last to the first: all of them, or those that masks leave.
struct Sm90AllSteps {
  int step;
  __device__ void advance() { --step; }
  __device__ Sm90LiveSteps::Step now() const { return {step, 0}; }
  __device__ Sm90LiveSteps::Step before() const { return {step + 1, 0}; }
};
struct Sm90MaskedSteps : Sm90LiveSteps {
  Step at{}, last{};
  __device__ void advance() {
    last = at;
    at = next();
  }
  __device__ Step now() const { return at; }
  __device__ Step before() const { return last; }
};

template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90Producer {
  using L = FlashSm90Layout<kTile>;
  static constexpr bool kMasks = kFeatures == FlashSm90Features::kKeys;
  const FlashSm90Call& call;
  FlashSm90Shared<kTile> shared;
  int lane, rank;  // in the warp; of the block in its cluster
  Ring<L::kStages> k_ring, v_ring;
  Ring<kTile.q_stages> q_ring;
  uint32_t landed = 0;  // a parity per stage
  int announcements = 0;
  // The V of this step is still to be copied, of the tile before; negative: none is.
  Sm90LiveSteps::Step lagging_step{-1, 0};
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
    const int h = t.strides[2] == 0 ? 0 : keys.head;
    const bool one = t.strides[0] == 0 || (kMasks && given(call.p.cu_seqlens_q));
    const int batch = one ? 0 : keys.b;
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

  // Consumers that are not told their steps find them noted beside K.
  __device__ void load_k(const Sm90Keys& keys, const Sm90LiveSteps::Step& step) {
    ptx::mbarrier_wait(shared.k_empty(k_ring.stage), k_ring.parity ^ 1);
    if constexpr (kMasks) {
      if (lane == 0) ptx::store_shared_4(shared.k_note(k_ring.stage), step_note(step.step, step.states));
    }
    load<L::kPages>(call.k_map, shared.k(k_ring.stage), shared.k_full(k_ring.stage), call.p.k, keys, step.step);
    k_ring.next();
  }

  __device__ void load_v(const Sm90Keys& keys, const Sm90LiveSteps::Step& step) {
    ptx::mbarrier_wait(shared.v_empty(v_ring.stage), v_ring.parity ^ 1);
    const int first = step.step * L::kN;
    const bool padded = kMasks && (step.states & kSm90StepPadded) != 0;
    // Rows behind the tensor's last read as zero.
    const int rows = static_cast<int>(call.p.v.shape[1]) - keys.row;
    const bool edge = padded || first < keys.valid_begin || min(first + L::kN, rows) > keys.valid_end;
    const uint32_t to = shared.v(v_ring.stage), full = shared.v_full(v_ring.stage);
    const uint32_t landed_here = shared.v_landed(v_ring.stage);
    load<L::kPagesV>(call.v_map, to, edge ? landed_here : full, call.p.v, keys, step.step);
    if (edge) {
      ptx::mbarrier_wait(landed_here, landed >> v_ring.stage & 1);
      landed ^= 1u << v_ring.stage;
      clear_edge(keys, to, first, padded);
      if (lane == 0) ptx::mbarrier_arrive(full);
    }
    v_ring.next();
  }

  // Rows of V that nobody attends become zero: they may hold NaN, and 0·NaN is NaN.
  __device__ void clear_edge(const Sm90Keys& keys, uint32_t tile, int first, bool padded) const {
    for (int row = lane / 8; row < L::kN; row += 4) {
      const int key = first + row;
      bool keep = key >= keys.valid_begin && key < keys.valid_end;
      if constexpr (kMasks) {
        const Tensor& t = call.p.key_padding;
        if (keep && padded) keep = attends(t, keys.b * t.strides[0] + key * t.strides[1]);
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

  __device__ void load_lagging_v() {
    if (lagging_step.step >= 0) load_v(lagging, lagging_step);
    lagging_step.step = -1;
  }

  // `count` of its steps, the first of which is at hand.
  template <typename Steps>
  __device__ void tile(const Sm90Work& w, const Sm90Turn& turn, Steps& steps, int count) {
    // A tile without queries has no outputs; one without keys has zeros.
    if (w.first_query >= w.sequence.queries) return;
    const auto write = [&](uint32_t to) { announce<kFeatures>(to, w, turn); };
    if (count <= 0) {
      load_lagging_v();
      load_q(nullptr, write);
      return;
    }
    // K first, then the V of the tile before: their places are free before that of Q, which the last step of the tile
    // before still reads.
    const int sharing = static_cast<int>(call.p.num_heads_q / call.p.num_heads_kv);
    const Sm90Keys keys{w.b, w.head / sharing, w.sequence.kv_row, w.valid_begin, w.valid_end};
    load_k(keys, steps.now());
    load_lagging_v();
    load_q(&w, write);
    while (--count > 0) {
      steps.advance();
      load_k(keys, steps.now());
      load_v(keys, steps.before());
    }
    lagging = keys;
    lagging_step = steps.now();
  }

  __device__ void masked_tile(Sm90Work w) {
    const FlashSm90Keys& keys = call.keys;
    Sm90MaskedSteps steps{{nullptr, w.first_step, w.end_step, lane}};
    if (keys.states != nullptr) {
      const int64_t item = item_of(keys, w, L::kM);
      steps.states = keys.states + item * keys.steps;
      w.bits = keys.bits + item * keys.steps * keys.rows * 4 * keys.words;
    }
    const int count = steps.start();
    if (count > 0) steps.advance();
    if (keys.states != nullptr) {
      w.first_step = 0;  // consumers count them, and find which they are beside K
      w.end_step = count;
    }
    tile(w, {}, steps, count);
  }

  // Whole tiles, or pieces of them, as Sm90Turns deals them out.
  __device__ void run_turns() {
    const Sm90Turns<kFeatures> turns{call.shares, static_cast<int>(blockIdx.x) / kTile.cluster,
                                     static_cast<int>(gridDim.x) / kTile.cluster, call.items * call.q_tiles};
    const int count = turns.count();
    for (int i = 0; i < count; ++i) {
      const Sm90Turn turn = turns.turn(i);
      const Sm90Work w =
          sm90_work<kTile, kFeatures>(call, locate<kTile, kFeatures>(call, turn.place, rank), turn, rank);
      Sm90AllSteps steps{w.end_step - 1};
      tile(w, turn, steps, w.end_step - w.first_step);
    }
    end();
  }

  // Tiles whose lengths only the device knows: each block takes the next of the list as soon as it can. A place is
  // asked for before the copies of a tile, and the answer is there when they are under way.
  __device__ void run_queue() {
    const FlashSm90Queue& queue = call.queue;
    const bool packed = queue.order != nullptr;
    const int blocks = static_cast<int>(gridDim.x);
    const int places = packed ? queue.first_place[call.p.batch] : call.items * call.q_tiles;
    for (int place = static_cast<int>(blockIdx.x); place < places;) {
      int next = place + blocks;
      if (queue.next != nullptr && lane == 0) next = blocks + atomicAdd(queue.next, 1);
      const Sm90Place at =
          packed ? locate_packed(queue, call.p, place, L::kM, lane) : locate<kTile, kFeatures>(call, place, 0);
      masked_tile(sm90_work<kTile, kFeatures>(call, at, {}, 0));
      place = ptx::uniform(next);
    }
    end();
  }

  __device__ void end() {
    load_lagging_v();
    load_q(nullptr, [](uint32_t to) { announce_end(to); });
  }
};

}  // namespace
}  // namespace attnmux::joint
