// SPDX-License-Identifier: Apache-2.0
// A consumer of the kernel of sm90_fp8.h: a warpgroup with 64 queries. The steps are those of sm90_consumer.cuh; what
// differs is that P·V of a step goes to sums of its own, which are added in fp32.
#pragma once

#include "kernels/cuda/flash/sm90_fp8_producer.cuh"
#include "kernels/cuda/flash/sm90_rows.cuh"
#include "kernels/cuda/flash/sm90_softmax.cuh"
#include "kernels/cuda/ptx/wgmma_e4m3.cuh"

namespace attnmux {
namespace {

// Maxima are powers of two, so that the rounding of P does not depend on the step. Where one is chosen, the largest P
// lies in (2^5, 2^6]: E4M3 holds 448 at most, and little below 2^-9. So scores may outgrow their maxima by seven times
// before another is chosen, and few steps look for one.
constexpr float kFp8Exponent = 6;
// P, in bits of fp32, which have the order of the numbers: beyond the first, E4M3 does not hold it; from the second on,
// sums might not be finite.
constexpr int kFp8Most = 0x43E00000, kFp8Huge = 0x71800000;  // 448, 2^100

// NaN makes the result NaN: "Floating Point Instructions: max".
__device__ inline float max_or_nan(float a, float b) {
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}

// 2^x within 0.18 % (the best parabola), on other units than exp2_approximate: E4M3 rounds by up to 6 %. What lies
// below -64 becomes 2^-64, which E4M3 rounds to zero; what lies above 126, and NaN, about 2^126.
__device__ inline float exp2_polynomial(float x) {
  constexpr float kInteger = 12582912;  // 1.5·2^23: adding it leaves the nearest integer in the low bits
  x = fmaxf(fminf(x, 126), -64);
  const float shifted = x + kInteger, fraction = x - (shifted - kInteger);
  const float power = fmaf(fmaf(0.238429f, fraction, 0.703448f), fraction, 1.000443f);
  return __int_as_float(__float_as_int(power) + (__float_as_int(shifted) << 23));
}

// Maxima for rows that have none yet; a NaN makes the whole row NaN.
template <int kCount>
__device__ inline void find_maxima(const float (&score)[kCount], float scale_log2, Sm90Row (&row)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = -INFINITY;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n)
      largest = max_or_nan(largest, max_or_nan(score[4 * n + 2 * half], score[4 * n + 2 * half + 1]));
    largest = max_or_nan(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 1));
    largest = max_or_nan(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 2));
    if (row[half].maximum == -INFINITY) row[half].maximum = ceilf(largest * scale_log2 - kFp8Exponent);
  }
}

// Of the P of a step: sums, and the largest, as bits.
struct Sm90Fp8Step {
  float sum[2] = {};
  int largest = 0;
};

// Products [kFirst, kEnd) of the thread become P = 2^(x·scale_log2 - maximum). kPolynomial of 16 exponentials are
// polynomials: the unit for the others is busy all the time.
template <int kPolynomial, int kFirst, int kEnd, int kCount>
__device__ inline void exponentials(float (&score)[kCount], float scale_log2, const Sm90Row (&row)[2],
                                    Sm90Fp8Step& of) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // A row without any attended key so far has P of 2^-inf.
    const float reference = row[half].maximum == -INFINITY ? 0 : row[half].maximum;
    float sum = 0;
#pragma unroll
    for (int n = kFirst / 4; n < kEnd / 4; ++n) {
      float* x = score + 4 * n + 2 * half;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float exponent = fmaf(x[i], scale_log2, -reference);
        const bool polynomial = (n * 2 + i) * 5 % 16 < kPolynomial;
        x[i] = polynomial ? exp2_polynomial(exponent) : ptx::exp2_approximate(exponent);
        sum += x[i];
      }
      of.largest = __vimax3_s32(of.largest, __float_as_int(x[0]), __float_as_int(x[1]));
    }
    of.sum[half] += sum;
  }
}

// The largest P of the thread's rows, as bits.
template <int kCount>
__device__ inline void largest_of_rows(const float (&score)[kCount], int (&largest)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    largest[half] = 0;
#pragma unroll
    for (int n = 0; n < kCount / 4; ++n)
      largest[half] = __vimax3_s32(largest[half], __float_as_int(score[4 * n + 2 * half]),
                                   __float_as_int(score[4 * n + 2 * half + 1]));
    largest[half] = max(largest[half], __shfl_xor_sync(0xFFFFFFFFu, largest[half], 1));
    largest[half] = max(largest[half], __shfl_xor_sync(0xFFFFFFFFu, largest[half], 2));
  }
}

// To the layout of a left factor, for V whose keys are in value_order.
template <int kCount>
__device__ inline void pack_fp8(const float (&score)[kCount], uint32_t (&p)[kCount / 16][4]) {
#pragma unroll
  for (int k = 0; k < kCount / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = 16 * k + i / 2 * 8 + i % 2 * 2;
      p[k][i] = ptx::pack_e4m3(score[at], score[at + 1], score[at + 4], score[at + 5]);
    }
  }
}

template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90Fp8Consumer {
  using L = FlashSm90Layout<kTile>;
  static constexpr int kN = L::kN, kSteps = (kTile.dim + 31) / 32;
  static constexpr int kParts = L::kParts, kPartColumns = kTile.dim_v / kParts;
  static constexpr int kPartCount = kPartColumns / 2, kCount = kParts * kPartCount;
  // Measured on an H200, 16384 keys: of head_dim 128, none is 2 % slower, 3 or 4 are 2 and 5 % slower, and all
  // exponentials before the wait 2 %; of head_dim 64, half of them behind it is 4 % slower.
  static constexpr int kPolynomial = kTile.dim == 128 ? 2 : 0;
  // So many exponentials run beside P·V; those that are left, beside the packing of P, for which P·V must be done.
  static constexpr int kBeside = kTile.dim == 128 ? kN / 4 : kN / 2;
  static constexpr bool kPositions = kFeatures != FlashSm90Features::kPlain;

  const FlashSm90Call& call;
  Sm90Fp8Shared<kTile> shared;
  int group, lane;  // of the block's; of the warp
  uint64_t q_factor, k_factor, v_factor;
  Ring<L::kStages> k_ring, v_ring;
  Ring<1> q_ring;

  float score[kN / 2], part[kPartCount], out[kCount];
  uint32_t p[kN / 32][4];
  Sm90Row row[2];
  float scale_log2;

  __device__ Sm90Fp8Consumer(const FlashSm90Call& c, Sm90Fp8Shared<kTile> s, int g, int thread)
      : call(c), shared(s), group(g), lane(thread % 32) {
    q_factor = ptx::narrow_descriptor<128>(shared.q() + static_cast<uint32_t>(g) * 64 * 128);
    k_factor = ptx::narrow_descriptor<128>(shared.k(0));
    v_factor = ptx::narrow_descriptor<kN>(shared.v(0));
  }

  // This thread has scores of two of the tile's queries, this one and the one 8 further.
  __device__ int row_of(int thread) const { return group * 64 + thread / 32 % 4 * 16 + thread % 32 / 4; }

  // S = Q·Kᵀ of the K tile at hand.
  __device__ void issue_qk() {
    const uint64_t k = k_factor + static_cast<uint32_t>(k_ring.stage) * (L::kKBytes / 16);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const uint32_t page = step / 4, at = step % 4 * 2;
      ptx::wgmma_e4m3_shared<kN>(score, q_factor + page * (L::kQPage / 16) + at, k + page * (L::kKPage / 16) + at,
                                 step > 0);
    }
    ptx::wgmma_commit();
  }

  // P·V of the V tile at hand and the columns of a part.
  __device__ void issue_pv(int which) {
    const uint64_t v = v_factor + static_cast<uint32_t>(v_ring.stage) * (L::kVBytes / 16) +
                       static_cast<uint32_t>(which) * (kPartColumns * kN / 16);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kN / 32; ++step)
      ptx::wgmma_e4m3_registers<kPartColumns>(part, p[step], v + step * 2, step > 0);
    ptx::wgmma_commit();
  }
  __device__ void add_part(int which) {
#pragma unroll
    for (int i = 0; i < kPartCount; ++i) out[which * kPartCount + i] += part[i];
  }
  // The first part is under way.
  __device__ void finish_pv() {
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      if (i > 0) issue_pv(i);
      ptx::wgmma_wait<0>();
      ptx::pin(part);
      add_part(i);
    }
    release(shared.v_empty(v_ring.stage));
    v_ring.next();
  }

  __device__ void wait_k() { ptx::mbarrier_wait(shared.k_full(k_ring.stage), k_ring.parity); }
  __device__ void wait_v() { ptx::mbarrier_wait(shared.v_full(v_ring.stage), v_ring.parity); }
  __device__ void release(uint32_t empty) const {
    if (lane == 0) ptx::mbarrier_arrive(empty);
  }
  __device__ void release_k(int stage) const { release(shared.k_empty(stage)); }
  // Where the next K tile will be; that of the one at hand is the result.
  __device__ int next_k() {
    const int stage = k_ring.stage;
    k_ring.next();
    return stage;
  }

  // Ping-pong, as in sm90_consumer.cuh.
  __device__ void take_turn() const {
    if constexpr (kTile.ping_pong) ptx::named_barrier_sync(1 + group, 256);
  }
  __device__ void hand_turn_on() const {
    if constexpr (kTile.ping_pong) ptx::named_barrier_arrive(group == kTile.groups - 1 ? 1 : 2 + group, 256);
  }

  // Some query of the group does not keep some key of the step.
  __device__ bool partial(const Sm90Work& w, int step) const {
    const int first = w.first_query + group * 64;
    return w.positions.begin(first + 63) > step * kN || w.positions.end(first) < (step + 1) * kN;
  }

  __device__ void mask_scores(const Sm90Work& w, int step, bool mask) {
    if (!mask) return;
    const int thread = ptx::thread_again(), query = w.first_query + row_of(thread);
    mask_products(w.positions, query, query + 8, step * kN + thread % 4 * 2, score);
  }
  template <int kFirst, int kEnd>
  __device__ void exponentiate(Sm90Fp8Step& of) {
    exponentials<kPolynomial, kFirst, kEnd>(score, scale_log2, row, of);
  }
  __device__ void use_probabilities(const Sm90Fp8Step& of) {
    row[0].sum += of.sum[0];
    row[1].sum += of.sum[1];
    pack_fp8(score, p);
  }

  // The last keys: there are no outputs yet.
  __device__ void first_step(const Sm90Work& w, int step) {
    clear();
    ptx::mbarrier_wait(shared.q_full(), q_ring.parity);
    q_ring.next();
    wait_k();
    issue_qk();
    ptx::wgmma_wait<0>();
    ptx::pin(score);
    release_k(next_k());
    mask_scores(w, step, partial(w, step));
    find_maxima(score, scale_log2, row);
    Sm90Fp8Step of;
    exponentiate<0, kN / 2>(of);
    use_probabilities(of);
  }

  // Q·Kᵀ of this step runs beside P·V of the one before; the exponentials of this step run beside P·V. `last`: of the
  // tile. No look for larger scores: what came out tells whether the maxima so far will do, and K stays until then.
  __device__ void middle_step(const Sm90Work& w, int step, bool last) {
    take_turn();
    issue_qk();
    wait_v();
    issue_pv(0);
    hand_turn_on();
    ptx::wgmma_wait<1>();
    ptx::pin(score);
    const int stage = next_k();
    const bool mask = kPositions && partial(w, step);
    mask_scores(w, step, mask);
    // Rows may have been masked so far.
    if (kPositions && !have_maxima()) find_maxima(score, scale_log2, row);
    Sm90Fp8Step of;
    exponentiate<0, kBeside>(of);
    // A branch between the exponentials and the wait for P·V, as in sm90_consumer.cuh.
    if (!last) wait_k();
    finish_pv();
    exponentiate<kBeside, kN / 2>(of);
    if (__any_sync(0xFFFFFFFFu, of.largest > kFp8Most)) settle(w, step, mask, stage, of);
    release_k(stage);
    use_probabilities(of);
  }

  // Has every row of the warp had a key?
  __device__ bool have_maxima() const {
    return __all_sync(0xFFFFFFFFu, row[0].maximum != -INFINITY && row[1].maximum != -INFINITY);
  }

  // P has outgrown the maxima. Below 2^100 a power of two mends P and all that goes with it. Beyond, everything before
  // is nothing beside it, and rows begin anew.
  __device__ void settle(const Sm90Work& w, int step, bool mask, int stage, Sm90Fp8Step& of) {
    int largest[2];
    largest_of_rows(score, largest);
    if (__any_sync(0xFFFFFFFFu, largest[0] >= kFp8Huge || largest[1] >= kFp8Huge)) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (largest[half] >= kFp8Huge) shrink_row(half, 0);
        if (largest[half] >= kFp8Huge) row[half].maximum = -INFINITY;
      }
      multiply_again(stage);
      mask_scores(w, step, mask);
      find_maxima(score, scale_log2, row);
      of = {};
      exponentiate<0, kN / 2>(of);
      largest_of_rows(score, largest);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (largest[half] <= kFp8Most) continue;
      const float growth = ceilf(log2f(__int_as_float(largest[half]))) - kFp8Exponent;
      const float factor = ptx::exp2_approximate(-growth);
      row[half].maximum += growth;
      of.sum[half] *= factor;
      shrink_row(half, factor);
#pragma unroll
      for (int i = 0; i < kN / 4; ++i) score[i / 2 * 4 + 2 * half + i % 2] *= factor;
    }
  }
  // What is summed up of a row so far.
  __device__ void shrink_row(int half, float factor) {
    row[half].sum *= factor;
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) out[i / 2 * 4 + 2 * half + i % 2] *= factor;
  }

  // S = Q·Kᵀ of the K tile in this stage, once more, by each warp for itself.
  __device__ void multiply_again(int stage) {
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) score[i] = 0;
    const uint32_t q = shared.q(), k = shared.k(stage);
    const int thread = ptx::thread_again(), l = thread % 32;
    const int q_row = group * 64 + thread / 32 % 4 * 16 + l % 16, k_row = l % 8 + l / 16 * 8;
#pragma unroll 1
    for (int step = 0; step < kSteps; ++step) {
      const auto piece = [&](uint32_t page, int row, int half) {
        return page + static_cast<uint32_t>(row * 128 + ((step % 4 * 2 + half) ^ row % 8) * 16);
      };
      const auto page = static_cast<uint32_t>(step / 4);
      uint32_t a[4];
      ptx::ldmatrix_x4(a, piece(q + page * L::kQPage, q_row, l / 16));
#pragma unroll
      for (int n = 0; n < kN / 16; ++n) {
        uint32_t b[4];
        ptx::ldmatrix_x4(b, piece(k + page * L::kKPage, 16 * n + k_row, l / 8 % 2));
        multiply_tile(8 * n, a, b[0], b[1]);
        multiply_tile(8 * n + 4, a, b[2], b[3]);
      }
    }
    __syncwarp();  // all lanes have read before one of them gives the tile back
  }
  __device__ void multiply_tile(int at, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    float d[4] = {score[at], score[at + 1], score[at + 2], score[at + 3]};
    ptx::mma_m16n8k32_e4m3(d, a, b0, b1);
#pragma unroll
    for (int i = 0; i < 4; ++i) score[at + i] = d[i];
  }

  // All steps of a tile, or of a piece of one.
  __device__ void steps(const Sm90Work& w) {
    if (w.empty()) {
      clear();
      return;
    }
    const int kv_head = w.head / static_cast<int>(call.p.num_heads_q / call.p.num_heads_kv);
    scale_log2 =
        call.scale_log2 * descale_of(call.p.q_descale, w.b, kv_head) * descale_of(call.p.k_descale, w.b, kv_head);
    int step = w.end_step - 1;
    first_step(w, step);
    if (step > w.first_step) wait_k();
#pragma unroll 1
    for (--step; step >= w.first_step; --step) middle_step(w, step, step == w.first_step);
    if (lane == 0) ptx::mbarrier_arrive(shared.q_empty());
    wait_v();
    issue_pv(0);
    finish_pv();
  }

  __device__ void finish(const Sm90Turn& turn) {
    const auto output = [this](int i) -> float& { return out[i]; };
    Sm90Sums of;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      of.maximum[half] = row[half].maximum;
      of.sum[half] = row[half].sum;
      of.sum[half] += __shfl_xor_sync(0xFFFFFFFFu, of.sum[half], 1);
      of.sum[half] += __shfl_xor_sync(0xFFFFFFFFu, of.sum[half], 2);
      // The largest P of a row is above 2^5; below 1 nothing is attended, and there are only what polynomials leave.
      if (of.sum[half] < 1) of.sum[half] = 0;
    }
    if (!kPositions && turn.pieces > 1 &&
        !join_rows<kCount>(call, turn, {0, 1, group, kTile.groups}, shared.word(group),
                           5 + static_cast<uint32_t>(group), 1, of, output))
      return;
    const Sm90Place place = locate<kTile, kFeatures>(call, turn.place, 0);
    const int kv_head = place.head / static_cast<int>(call.p.num_heads_q / call.p.num_heads_kv);
    store_rows<__nv_bfloat16, kTile.dim_v>(
        call, place, row_of(ptx::thread_again()), 0, descale_of(call.p.v_descale, place.b, kv_head), of, output,
        [](float maximum, float sum) { return (maximum + log2f(sum)) * 0.6931471805599453f; });
  }

  __device__ void clear() {
    row[0] = row[1] = {};
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = 0;
  }
};

}  // namespace
}  // namespace attnmux
