// SPDX-License-Identifier: Apache-2.0
// The bias of a step, in shared memory: pages of 128 bytes a row, swizzled as the other tiles. It comes as boxes by the
// copy engine where rows of the tensor start at multiples of 16 bytes, else by loads of the producer's other three
// warps.
#pragma once

#include "kernels/cuda/flash/sm90_schedule.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"
#include "kernels/cuda/ptx/tma.cuh"

namespace attnmux {
namespace {

// Where the stages of the bias lie: two of 16-bit elements or one of 32-bit ones. It walks over them.
template <FlashSm90Tile kTile>
struct Sm90BiasRing {
  using L = FlashSm90Layout<kTile>;
  FlashSm90Shared<kTile> shared;
  bool wide;  // 32-bit elements
  int stage = 0;
  uint32_t parity = 0;

  __device__ uint32_t tile() const { return shared.base + L::kBias + static_cast<uint32_t>(stage) * L::kBiasBytes; }
  __device__ uint32_t order() const { return shared.base + 384 + static_cast<uint32_t>(stage) * 64; }
  __device__ uint32_t ordered() const { return order() + 16; }
  __device__ uint32_t full() const { return order() + 24; }
  __device__ uint32_t empty() const { return order() + 32; }
  __device__ void next() {
    if (wide || stage == 1) parity ^= 1;
    if (!wide) stage ^= 1;
  }
  __device__ static void init(const FlashSm90Call& call, FlashSm90Shared<kTile> shared) {
    Sm90BiasRing ring{shared, false};
    for (; ring.parity == 0; ring.next()) {
      ptx::mbarrier_init(ring.ordered(), 1);
      ptx::mbarrier_init(ring.full(), call.bias_boxes != 0 ? 1 : 3);
      ptx::mbarrier_init(ring.empty(), 4 * kTile.groups);
    }
  }
};

// What the producer's first warp tells the others to copy.
struct Sm90BiasOrder {
  const void* from;  // null: no more comes
  int rows, keys;    // that exist; others read as zero
};

// Rows warp, warp + 3, … of a tile; a lane has four neighbouring keys.
template <typename Word, int kKeys>
__device__ inline void copy_bias_rows(const Sm90BiasOrder& order, const Tensor& t, uint32_t tile, int rows,
                                      uint32_t page_bytes, int warp, int lane) {
  constexpr int kUnroll = 2;
  const int key = lane * 4;
  if (key >= kKeys) return;
  const int64_t stride = t.strides[3], next_row = 3 * t.strides[2];
  const auto* from = static_cast<const Word*>(order.from) + key * stride + warp * t.strides[2];
  const auto column = static_cast<uint32_t>(key * sizeof(Word));
  const uint32_t to = tile + column / 128 * page_bytes;
  for (int first = warp; first < rows; first += 3 * kUnroll) {
    Word got[kUnroll][4];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u, from += next_row) {
      const Word* at = from;
#pragma unroll
      for (int i = 0; i < 4; ++i, at += stride)
        got[u][i] = first + 3 * u < order.rows && key + i < order.keys ? *at : Word{0};
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int row = first + 3 * u;
      if (row >= rows) break;
      const uint32_t there =
          to + static_cast<uint32_t>(row) * 128 + (column % 128 ^ static_cast<uint32_t>(row % 8) * 16);
      if constexpr (sizeof(Word) == 4) {
        ptx::store_shared_16(there, got[u]);
      } else {
        ptx::store_shared_4(there, got[u][0] | static_cast<uint32_t>(got[u][1]) << 16);
        ptx::store_shared_4(there + 4, got[u][2] | static_cast<uint32_t>(got[u][3]) << 16);
      }
    }
  }
}

// The producer's side. Warp 0 says what comes next; where boxes cannot be copied, the other three copy it. An order
// lies beside the stage that it is for. The next one for that stage is written after the wait for `empty`, hence after
// the consumers' wait for `full`, at which the other warps arrive when they have read the order; and they write a tile
// after the wait for `ordered`, hence after warp 0's for `empty`. The compute sanitizer's racecheck does not follow
// such chains over two barriers and a third warp, and reports them.
template <FlashSm90Tile kTile>
struct Sm90BiasSource {
  using L = FlashSm90Layout<kTile>;
  const FlashSm90Call& call;
  Sm90BiasRing<kTile> ring;
  int warp, lane;

  __device__ void give(const Sm90BiasOrder& order) const {
    if (lane != 0) return;
    const auto from = reinterpret_cast<uint64_t>(order.from);
    const uint32_t words[4] = {static_cast<uint32_t>(from), static_cast<uint32_t>(from >> 32),
                               static_cast<uint32_t>(order.rows), static_cast<uint32_t>(order.keys)};
    ptx::store_shared_16(ring.order(), words);
    ptx::mbarrier_arrive(ring.ordered());
  }

  __device__ void load_boxes(const Sm90Work& w, int key) const {
    if (lane != 0) return;
    const Tensor& t = call.p.bias;
    const int size = ring.wide ? 4 : 2, pages = (L::kN * size + 127) / 128;
    ptx::mbarrier_arrive_expect(ring.full(), static_cast<uint32_t>(pages * call.bias_rows * 128));
    for (int i = 0; i < pages; ++i) {
      ptx::load_box(ring.tile() + static_cast<uint32_t>(i) * L::kQPage, call.bias_map, ring.full(),
                    key + i * (128 / size), t.strides[2] == 0 ? 0 : w.first_query, t.strides[1] == 0 ? 0 : w.head,
                    t.strides[0] == 0 ? 0 : w.b, ptx::kEvictLast);
    }
  }

  // Warp 0: the bias of a step.
  __device__ void load(const Sm90Work& w, int step) {
    ptx::mbarrier_wait(ring.empty(), ring.parity ^ 1);
    const Tensor& t = call.p.bias;
    const int key = step * L::kN;
    if (call.bias_boxes != 0) {
      load_boxes(w, key);
    } else {
      const int64_t at = w.b * t.strides[0] + w.head * t.strides[1] + w.first_query * t.strides[2] + key * t.strides[3];
      const int rows = call.bias_rows == 1 ? 1 : static_cast<int>(call.p.seqlen_q) - w.first_query;
      give({static_cast<const char*>(t.data) + at * (ring.wide ? 4 : 2), rows,
            static_cast<int>(call.p.seqlen_kv) - key});
    }
    ring.next();
  }
  __device__ void end() const {
    if (call.bias_boxes != 0) return;
    ptx::mbarrier_wait(ring.empty(), ring.parity ^ 1);
    give({nullptr, 0, 0});
  }

  // The other warps.
  __device__ void help() {
    for (;; ring.next()) {
      ptx::mbarrier_wait(ring.ordered(), ring.parity);
      const uint4 words = ptx::load_shared_16(ring.order());
      const Sm90BiasOrder order{reinterpret_cast<const void*>(uint64_t{words.y} << 32 | words.x),
                                static_cast<int>(words.z), static_cast<int>(words.w)};
      if (order.from == nullptr) return;
      if (ring.wide) {
        copy_bias_rows<uint32_t, L::kN>(order, call.p.bias, ring.tile(), call.bias_rows, L::kQPage, warp - 1, lane);
      } else {
        copy_bias_rows<uint16_t, L::kN>(order, call.p.bias, ring.tile(), call.bias_rows, L::kQPage, warp - 1, lane);
      }
      __syncwarp();
      if (lane == 0) ptx::mbarrier_arrive(ring.full());
    }
  }
};

}  // namespace
}  // namespace attnmux
