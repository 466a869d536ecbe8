// SPDX-License-Identifier: Apache-2.0
// A consumer: a warpgroup with 64 queries (algorithm 2 of the paper, its consumer branch). Two overlaps hide softmax:
// within a group, the products of a step run beside the softmax of its neighbour; between groups, one's softmax runs
// beside the other's products (ping-pong).
#pragma once

#include "kernels/cuda/flash/joint/sm90_announce.cuh"
#include "kernels/cuda/flash/joint/sm90_softmax.cuh"
#include "kernels/cuda/flash/sm90_bits.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"

namespace attnmux::joint {
namespace {

template <typename T, FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90Consumer {
  using L = FlashSm90Layout<kTile>;
  static constexpr int kN = L::kN;
  static constexpr bool kPositions = kFeatures != FlashSm90Features::kPlain;
  static constexpr bool kMasks = kFeatures == FlashSm90Features::kKeys;
  // Wide outputs are rescaled while Q·Kᵀ runs, not between the two waits of a step.
  static constexpr bool kEarlyRescale = kTile.dim_v > 128;
  static constexpr bool kTrusting = kTile.trusting;
  // The last P·V of a tile is left to the first step of the next where registers allow it.
  static constexpr bool kLeavesOpen = kTile.dim_v <= 128;

  const FlashSm90Call& call;
  FlashSm90Shared<kTile> shared;
  int rank;         // of the block in its cluster
  int group, lane;  // of the block's; of the warp
  uint64_t q_factor, k_factor, v_factor;
  Ring<L::kStages> k_ring, v_ring;
  Ring<kTile.q_stages> q_ring;

  float score[kN / 2], out[kTile.dim_v / 2];
  uint32_t p[kN / 16][4];
  Sm90Row row[2];
  float rescale[2];
  bool renewed;             // rescale is not 1
  Sm90StepBits<kN> bits{};  // of instances with kKeys

  __device__ Sm90Consumer(const FlashSm90Call& c, FlashSm90Shared<kTile> s, int r, int g, int l)
      : call(c), shared(s), rank(r), group(g), lane(l) {
    q_factor = ptx::matrix_descriptor(shared.q(0) + static_cast<uint32_t>(g) * 64 * 128, 16);
    k_factor = ptx::matrix_descriptor(shared.k(0), 16);
    v_factor = ptx::matrix_descriptor(shared.v(0), L::kKvPage);
  }

  // This thread has scores of two of the tile's queries, this one and the one 8 further.
  __device__ int lane_row(int thread) const { return group * 64 + thread / 32 % 4 * 16 + thread % 32 / 4; }

  // S = Q·Kᵀ of the K tile at hand.
  __device__ void issue_qk() {
    const uint64_t q = q_factor + static_cast<uint32_t>(q_ring.stage) * (L::kQBytes / 16);
    const uint64_t k = k_factor + static_cast<uint32_t>(k_ring.stage) * (L::kKBytes / 16);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kTile.dim / 16; ++step) {
      const uint32_t page = step / 4, at = step % 4 * 2;
      ptx::wgmma_shared<T, kN>(score, q + page * (L::kQPage / 16) + at, k + page * (L::kKvPage / 16) + at, step > 0);
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
  __device__ void release_q() {
    if (lane == 0) ptx::mbarrier_arrive(shared.q_empty(q_ring.stage, group));
    q_ring.next();
  }
  __device__ void release_qk(bool last) {
    const int stage = k_ring.stage;
    k_ring.next();
    release_qk(stage, last);
  }
  __device__ void release_qk(int stage, bool last) {
    release(shared.k_empty(stage));
    if (last) release_q();
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

  // Probabilities become a factor, and count.
  __device__ void use_probabilities() {
    float sum[2];
    sum_probabilities(score, sum);
    use_probabilities(sum);
  }
  __device__ void use_probabilities(const float (&sum)[2]) {
    row[0].sum += sum[0];
    row[1].sum += sum[1];
    pack_probabilities<T>(score, p);
  }

  // Some query of the group does not keep some key of the step.
  __device__ bool partial(const Sm90Work& w, int step) const {
    const int first = w.first_query + group * 64;
    return w.positions.begin(first + 63) > step * kN || w.positions.end(first) < (step + 1) * kN;
  }

  // The step that the K tile at hand is. Where masks may hide whole steps, `step` counts those that are left.
  __device__ int step_at_hand(const uint32_t* masks, int step) {
    if constexpr (!kMasks) {
      return step;
    } else {
      if (masks == nullptr) return step;
      const int note = ptx::uniform(static_cast<int>(ptx::load_shared_4(shared.k_note(k_ring.stage))));
      bits.masked = is_masked(note);
      return step_of(note);
    }
  }
  // Before the wait for the products that they apply to, which hides the latency.
  __device__ void fetch_bits(const Sm90Work& w, int step) {
    if constexpr (kMasks) bits.fetch(call.keys, w.bits, step, lane_row(ptx::thread_again()));
  }

  // `mask`: by position.
  __device__ void mask_scores(const Sm90Work& w, int step, bool mask) {
    if (mask) {
      const int thread = ptx::thread_again();
      mask_products(w.positions, w.first_query + lane_row(thread), step * kN + thread % 4 * 2, score);
    }
    if constexpr (kMasks) bits.mask(score);
  }
  __device__ void softmax(const Sm90Work& w, int step, bool mask) {
    mask_scores(w, step, mask);
    renewed = softmax_step<kTile.lazy>(score, call.scale_log2, row, rescale);
    ptx::pin(score);  // the exponentials stay here, beside P·V, also where they are used behind branches only
  }

  // The last keys of a tile: there are no outputs yet.
  __device__ void first_step(const Sm90Work& w, int step) {
    wait_k();
    const int at = step_at_hand(w.bits, step);
    issue_qk();
    fetch_bits(w, at);
    ptx::wgmma_wait<0>();
    ptx::pin(score);
    release_qk(step == w.first_step);
    row[0] = row[1] = {};
    softmax(w, at, partial(w, at));
    clear();
    use_probabilities();
  }

  // The same beside the last P·V of the tile before, whose outputs are then stored beside products of other groups.
  __device__ void joint_step(const Sm90Work& w, int step, uint32_t before) {
    wait_k();
    const int at = step_at_hand(w.bits, step);
    issue_both(w, at);
    release_qk(step == w.first_step);
    const Sm90Row old[2] = {row[0], row[1]};
    // A loop of one turn, which the assembler does not know: else it moves the exponentials behind the wait for P·V.
#pragma unroll 1
    do {
      row[0] = row[1] = {};
      softmax(w, at, partial(w, at));
    } while (w.first_step < 0);
    wait_pv(step == w.first_step);
    use_probabilities();
    store(before, old);
    clear();
  }

  // Q·Kᵀ of this step runs beside P·V of the one before; the softmax of this step runs beside P·V. `last`: of the tile.
  __device__ void middle_step(const Sm90Work& w, int step, bool last) {
    if constexpr (kTrusting) {
      trusting_step(w, step, last);
      return;
    }
    const int at = step_at_hand(w.bits, step);
    issue_both(w, at);
    release_qk(last);
    softmax(w, at, kPositions && partial(w, at));
    wait_pv(last);
    if constexpr (!kEarlyRescale) rescale_out();
    use_probabilities();
  }

  // The same without a look for larger scores: the sums tell whether the maxima so far will do. K and Q stay until
  // then.
  __device__ void trusting_step(const Sm90Work& w, int step, bool last) {
    const int at = step_at_hand(w.bits, step);
    issue_both(w, at);
    const int stage = k_ring.stage;
    k_ring.next();
    const bool mask = kPositions && partial(w, at);
    mask_scores(w, at, mask);
    float sum[2];
    // Rows may have been masked so far.
    const bool known = !kPositions || have_maxima(row);
    renewed = !known;
    if (known) {
      exponentiate(score, call.scale_log2, row);
      ptx::pin(score);
    }
    if (!last) wait_k();  // see wait_pv
    if (known) {
      sum_probabilities(score, sum);
      renewed = outgrown(sum, row);
    }
    if (renewed) {
      if (known) {
        multiply_again(stage);
        mask_scores(w, at, mask);
      }
      softmax_step<false>(score, call.scale_log2, row, rescale);
      sum_probabilities(score, sum);
    }
    release_qk(stage, last);
    ptx::wgmma_wait<0>();
    ptx::pin(out);
    release_v();
    if constexpr (!kEarlyRescale) rescale_out();
    use_probabilities(sum);
  }

  // S = Q·Kᵀ of the K tile in this stage, once more, by each warp for itself while products of the group are under way.
  __device__ void multiply_again(int stage) {
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) score[i] = 0;
    const int thread = ptx::thread_again(), l = thread % 32;
    const uint32_t q = shared.q(q_ring.stage), k = shared.k(stage);
    const int q_row = group * 64 + thread / 32 % 4 * 16 + l % 16, k_row = l % 8 + l / 16 * 8;
#pragma unroll 1
    for (int step = 0; step < kTile.dim / 16; ++step) {
      const auto piece = [&](uint32_t page, int row, int half) {
        return page + static_cast<uint32_t>(row * 128 + ((step % 4 * 2 + half) ^ row % 8) * 16);
      };
      uint32_t a[4];
      ptx::ldmatrix_x4(a, piece(q + step / 4 * L::kQPage, q_row, l / 16));
#pragma unroll
      for (int n = 0; n < kN / 16; ++n) {
        uint32_t b[4];
        ptx::ldmatrix_x4(b, piece(k + step / 4 * L::kKvPage, 16 * n + k_row, l / 8 % 2));
        multiply_tile(8 * n, a, b[0], b[1]);
        multiply_tile(8 * n + 4, a, b[2], b[3]);
      }
    }
    __syncwarp();  // all lanes have read before one of them gives the tiles back
  }
  __device__ void multiply_tile(int at, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    float d[4] = {score[at], score[at + 1], score[at + 2], score[at + 3]};
    ptx::mma_m16n8k16<T>(d, a, b0, b1);
#pragma unroll
    for (int i = 0; i < 4; ++i) score[at + i] = d[i];
  }

  // Returns when Q·Kᵀ is done.
  __device__ void issue_both(const Sm90Work& w, int step) {
    take_turn();
    issue_qk();
    if constexpr (kEarlyRescale) rescale_out();
    wait_v();
    issue_pv();
    hand_turn_on();
    fetch_bits(w, step);
    ptx::wgmma_wait<1>();
    ptx::pin(score);
  }
  // Waits for P·V after the exponentials of the next step.
  __device__ void wait_pv(bool last) {
    // A branch must stand between the exponentials and the wait for P·V: without one the assembler moves the wait above
    // them, and the two no longer overlap.
    if (!last) wait_k();
    ptx::wgmma_wait<0>();
    ptx::pin(out);
    release_v();
  }

  __device__ void last_product() {
    if constexpr (kEarlyRescale) rescale_out();
    wait_v();
    issue_pv();
    ptx::wgmma_wait<0>();
    ptx::pin(out);
    release_v();
  }

  // All tiles that the producer announces. Where the last P·V of a whole one is left to the first step of the next, the
  // tensor cores have work while softmax begins anew and outputs are stored.
  __device__ void tiles() {
    bool open = false;  // the last P·V is left
#pragma unroll 1
    for (int i = 0;; ++i) {
      ptx::mbarrier_wait(shared.q_full(q_ring.stage, group), q_ring.parity);
      const uint32_t announcement = shared.announcement(i);
      const Sm90Work w = announced_work<kFeatures>(announcement);
      if constexpr (kLeavesOpen) {
        if (open && w.empty()) {
          last_product();
          store(shared.announcement(i - 1), row);
          open = false;
        }
      }
      if (w.no_more()) break;
      const bool whole = kPositions || announced(announcement, kWordPieces) == 1;
      if (w.empty()) {
        release_q();
        row[0] = row[1] = {};
        clear();
      } else {
        steps(w, open, shared.announcement(i - 1));
        open = kLeavesOpen && whole;
        if (open) continue;
        last_product();
      }
      if (whole || join_pieces(announcement)) store(announcement, row);
    }
  }

  __device__ void steps(const Sm90Work& w, bool open, uint32_t before) {
    int step = w.end_step - 1;
    if constexpr (kLeavesOpen) {
      if (open) joint_step(w, step, before);
    }
    if (!kLeavesOpen || !open) {
      first_step(w, step);
      if (step > w.first_step) wait_k();
    }
#pragma unroll 1
    for (--step; step >= w.first_step; --step) middle_step(w, step, step == w.first_step);
  }

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kTile.dim_v / 2; ++i) out[i] = 0;
  }
  __device__ bool join_pieces(uint32_t announcement);
  __device__ void store(uint32_t announcement, const Sm90Row (&of)[2]);
};

}  // namespace
}  // namespace attnmux::joint
