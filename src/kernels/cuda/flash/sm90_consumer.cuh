// SPDX-License-Identifier: Apache-2.0
// A consumer: a warpgroup with 64 queries (algorithm 2 of the paper, its consumer branch). Two overlaps hide softmax:
// within a group, the products of a step run beside the softmax of its neighbour; between groups, one's softmax runs
// beside the other's products (ping-pong).
#pragma once

#include "kernels/cuda/flash/sm90_bias.cuh"
#include "kernels/cuda/flash/sm90_bits.cuh"
#include "kernels/cuda/flash/sm90_board.cuh"
#include "kernels/cuda/flash/sm90_scores.cuh"
#include "kernels/cuda/flash/sm90_softmax.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"

namespace attnmux {
namespace {

template <typename T, FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90Consumer {
  using L = FlashSm90Layout<kTile>;
  static constexpr int kN = L::kN;
  static constexpr bool kAll = kFeatures == FlashSm90Features::kAll;
  static constexpr bool kPositions = kFeatures != FlashSm90Features::kPlain;
  static constexpr bool kStreamed = flash_sm90_is_streamed(kFeatures);
  // Wide outputs are rescaled while Q·Kᵀ runs, not between the two waits of a step.
  static constexpr bool kEarlyRescale = kTile.dim_v > 128;

  const FlashSm90Call& call;
  FlashSm90Shared<kTile> shared;
  int rank;             // of the block in its cluster
  int group, lane_row;  // of the block's; of the tile's queries, and 8 further
  int lane;             // of the warp
  uint64_t q_factor, k_factor, v_factor;
  Ring<L::kStages> k_ring, v_ring;
  Ring<1> q_ring;

  float score[kN / 2], out[kTile.dim_v / 2];
  uint32_t p[kN / 16][4];
  Sm90Row row[2];
  float rescale[2];
  bool renewed;           // rescale is not 1
  Sm90StepBits<kN> bits;  // of instances that are streamed
  Sm90BiasRing<kTile> bias;

  __device__ Sm90Consumer(const FlashSm90Call& c, FlashSm90Shared<kTile> s, int r, int g, int thread)
      : call(c),
        shared(s),
        rank(r),
        group(g),
        lane_row(thread / 32 * 16 + thread % 32 / 4),
        lane(thread % 32),
        bias{s, c.p.bias.dtype == ATTNMUX_FP32} {
    q_factor = ptx::matrix_descriptor(shared.q() + static_cast<uint32_t>(g) * 64 * 128, 16);
    k_factor = ptx::matrix_descriptor(shared.k(0), 16);
    v_factor = ptx::matrix_descriptor(shared.v(0), L::kKvPage);
    lane_row += g * 64;
  }

  // S = Q·Kᵀ of the K tile at hand.
  __device__ void issue_qk() {
    const uint64_t k = k_factor + static_cast<uint32_t>(k_ring.stage) * (L::kKBytes / 16);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kTile.dim / 16; ++step) {
      const uint32_t page = step / 4, at = step % 4 * 2;
      ptx::wgmma_shared<T, kN>(score, q_factor + page * (L::kQPage / 16) + at, k + page * (L::kKvPage / 16) + at,
                               step > 0);
    }
    ptx::wgmma_commit();
  }

  // O += P·V of the V tile at hand.
  __device__ void issue_pv() {
    const uint64_t v = v_factor + static_cast<uint32_t>(v_ring.stage) * (L::kVBytes / 16);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kN / 16; ++step)
      ptx::wgmma_registers<T, kTile.dim_v>(out, p[step], v + step * (16 * 128 / 16));
    ptx::wgmma_commit();
  }

  __device__ void wait_k() { ptx::mbarrier_wait(shared.k_full(k_ring.stage), k_ring.parity); }
  __device__ void wait_v() { ptx::mbarrier_wait(shared.v_full(v_ring.stage), v_ring.parity); }
  // The warp has read a tile: all blocks that copy parts of it hear of that.
  __device__ void release(uint32_t empty) const {
    if constexpr (kTile.cluster == 1) {
      if (lane == 0) ptx::mbarrier_arrive(empty);
    } else {
      if (lane < kTile.cluster) ptx::mbarrier_arrive_in_cluster(empty, static_cast<uint32_t>(lane));
    }
  }
  __device__ void release_k() {
    release(shared.k_empty(k_ring.stage));
    k_ring.next();
  }
  __device__ void release_v() {
    release(shared.v_empty(v_ring.stage));
    v_ring.next();
  }

  // Ping-pong: named barrier 1 + g lets group g issue its products; the group before hands it on.
  __device__ void take_turn() const {
    if constexpr (kTile.ping_pong) ptx::named_barrier_sync(1 + group, 256);
  }
  __device__ void hand_turn_on() const {
    if constexpr (kTile.ping_pong) ptx::named_barrier_arrive(group == kTile.groups - 1 ? 1 : 2 + group, 256);
  }

  __device__ void rescale_out() {
    if (!renewed) return;
#pragma unroll
    for (int i = 0; i < kTile.dim_v / 2; ++i) out[i] *= rescale[i / 2 % 2];
  }

  // Some query of the group does not keep some key of the step.
  __device__ bool partial(const Sm90Work& w, int step) const {
    const int first = w.first_query + group * 64;
    return w.positions.begin(query_of<kFeatures>(call, first + 63)) > step * kN ||
           w.positions.end(query_of<kFeatures>(call, first)) < (step + 1) * kN;
  }

  // From products to scores: softcap or scale, then the bias of the step.
  __device__ void finish_scores() {
    const Problem& problem = call.p;
    auto scale = static_cast<float>(problem.scale);
    const bool capped = problem.softcap > 0;
    if (capped) {
      cap_scores(scale, static_cast<float>(problem.softcap), score);
      scale = 1;
    }
    if (!given(problem.bias)) {
      if (!capped) scale_scores(scale, score);
      return;
    }
    ptx::mbarrier_wait(bias.full(), bias.parity);
    const bool one = call.bias_rows == 1;
    const uint32_t tile = bias.tile() + (one ? 0 : static_cast<uint32_t>(lane_row) * 128), next = one ? 0 : 8 * 128;
    const uint32_t swizzle = one ? 0 : static_cast<uint32_t>(lane_row) % 8 * 16;
    const auto add = [&]<typename Bias>(Bias /*element*/) {
      const Sm90BiasPairs<Bias> pairs{tile, L::kQPage, next, swizzle};
      if (__any_sync(0xFFFFFFFFu, pairs.template extreme<kN / 2>())) {
        pairs.add(scale, true, score);
      } else {
        pairs.add(scale, false, score);
      }
    };
    if (problem.bias.dtype == ATTNMUX_FP32) {
      add(float{});
    } else if (problem.bias.dtype == ATTNMUX_FP16) {
      add(__half{});
    } else {
      add(__nv_bfloat16{});
    }
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(bias.empty());
    bias.next();
  }

  __device__ void softmax(const Sm90Work& w, int step, bool mask) {
    const int row_of_lane = w.first_query + lane_row, key = step * kN + static_cast<int>(threadIdx.x) % 4 * 2;
    if constexpr (kAll) finish_scores();
    if (mask) {
      mask_products(w.positions, query_of<kFeatures>(call, row_of_lane), query_of<kFeatures>(call, row_of_lane + 8),
                    key, score);
    }
    if constexpr (kStreamed) bits.mask(score);
    renewed = softmax_step<kTile.lazy, kAll>(score, call.scale_log2, row, rescale);
  }

  // The step that the K tile at hand is, and whether masks hide some of it. It stays until the tile is released.
  __device__ int noted_step() {
    const int note = ptx::uniform(static_cast<int>(ptx::load_shared_4(shared.k_note(k_ring.stage))));
    bits.masked = is_masked(note);
    return step_of(note);
  }

  // The last keys: there are no outputs yet.
  __device__ void first_step(const Sm90Work& w, int step) {
    clear();
    ptx::mbarrier_wait(shared.q_full(), q_ring.parity);
    q_ring.next();
    wait_k();
    if constexpr (kStreamed) step = noted_step();
    issue_qk();
    if constexpr (kStreamed) bits.fetch(call.keys, w.bits, step, lane_row);
    ptx::wgmma_wait<0>();
    ptx::pin(score);
    release_k();
    softmax(w, step, partial(w, step));
    pack_probabilities<T>(score, p);
  }

  // Q·Kᵀ of this step runs beside P·V of the one before; the softmax of this step runs beside P·V. `last`: of the tile.
  __device__ void middle_step(const Sm90Work& w, int step, bool last) {
    if constexpr (kStreamed) step = noted_step();
    take_turn();
    issue_qk();
    if constexpr (kEarlyRescale) rescale_out();
    wait_v();
    issue_pv();
    hand_turn_on();
    if constexpr (kStreamed) bits.fetch(call.keys, w.bits, step, lane_row);
    ptx::wgmma_wait<1>();
    ptx::pin(score);
    release_k();
    softmax(w, step, kPositions && partial(w, step));
    // A branch must stand between the exponentials and the wait for P·V: without one the assembler moves the wait above
    // them, and the two no longer overlap.
    if (!last) wait_k();
    ptx::wgmma_wait<0>();
    ptx::pin(out);
    release_v();
    if constexpr (!kEarlyRescale) rescale_out();
    pack_probabilities<T>(score, p);
  }

  __device__ void last_product() {
    if constexpr (kEarlyRescale) rescale_out();
    wait_v();
    issue_pv();
    ptx::wgmma_wait<0>();
    ptx::pin(out);
    release_v();
  }

  // All steps of a tile, or of a piece of one.
  __device__ void steps(const Sm90Work& w) {
    if (w.empty()) {
      clear();
      return;
    }
    int step = w.end_step - 1;
    first_step(w, step);
    if (step > w.first_step) wait_k();
#pragma unroll 1
    for (--step; step >= w.first_step; --step) middle_step(w, step, step == w.first_step);
    if (lane == 0) ptx::mbarrier_arrive(shared.q_empty());
    last_product();
  }

  __device__ void finish(const Sm90Turn& turn) {
    if (turn.pieces != 1 && !join_pieces(turn)) return;
    const Sm90Place place = locate<kTile, kFeatures>(call, turn.place, rank);
    store(place, sm90_sequence(call, place.b));
  }

  // Computes what the producer hands on, until nothing is left.
  __device__ void follow(Sm90Board<kTile> board) {
#pragma unroll 1
    for (;;) {
      board.wait();
      if (board.steps() < 0) return;
      steps(board.work());
      store(board.place(), board.sequence());
      board.done(lane);
    }
  }

  __device__ void clear() {
    row[0] = row[1] = {};
#pragma unroll
    for (int i = 0; i < kTile.dim_v / 2; ++i) out[i] = 0;
  }
  __device__ bool join_pieces(const Sm90Turn& turn);
  __device__ void store(const Sm90Place& place, const Sm90Sequence& sequence);
};

}  // namespace
}  // namespace attnmux
