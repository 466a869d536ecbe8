// SPDX-License-Identifier: Apache-2.0
// How the producer tells the consumers what comes next: two places in shared memory for tiles, and a word beside each
// K tile for its keys. So consumers read nothing of the masks' and sequences' tables, and wait for none of them.
#pragma once

#include "kernels/cuda/flash/sm90_schedule.cuh"
#include "kernels/cuda/ptx/cp_async.cuh"
#include "kernels/cuda/ptx/mbarrier.cuh"

namespace attnmux {
namespace {

template <FlashSm90Tile kTile>
struct Sm90Board {
  static constexpr int kWarps = 4 * kTile.groups, kWords = 16;
  FlashSm90Shared<kTile> shared;
  Ring<2> ring;

  __device__ uint32_t notice() const { return shared.base + 512 + static_cast<uint32_t>(ring.stage) * 128; }
  __device__ uint32_t full() const { return notice() + 64; }
  __device__ uint32_t empty() const { return notice() + 72; }

  __device__ static void init(FlashSm90Shared<kTile> s) {
    Sm90Board board{s, {}};
    for (; board.ring.parity == 0; board.ring.next()) {
      ptx::mbarrier_init(board.full(), 1);
      ptx::mbarrier_init(board.empty(), kWarps);
    }
  }

  // The producer's part: one lane writes. `steps` below 0 says that no tile is left.
  __device__ void write(const Sm90Work& w, int steps, int lane) {
    ptx::mbarrier_wait(empty(), ring.parity ^ 1);
    if (lane == 0) {
      const auto bits = reinterpret_cast<uint64_t>(w.bits);
      const int words[kWords] = {w.b,
                                 w.head,
                                 w.first_query,
                                 w.sequence.batch,
                                 w.sequence.q_row,
                                 w.sequence.kv_row,
                                 w.sequence.queries,
                                 w.sequence.keys,
                                 steps,
                                 w.positions.first,
                                 w.positions.last,
                                 w.positions.begin_key,
                                 w.positions.length,
                                 static_cast<int>(bits),
                                 static_cast<int>(bits >> 32),
                                 0};
#pragma unroll
      for (int i = 0; i < kWords; ++i)
        ptx::store_shared_4(notice() + static_cast<uint32_t>(i) * 4, static_cast<uint32_t>(words[i]));
      ptx::mbarrier_arrive(full());
    }
    ring.next();
  }

  // The consumers' part. All lanes get all words; shuffles show the compiler that they are the same in the warp.
  __device__ void wait() const { ptx::mbarrier_wait(full(), ring.parity); }
  __device__ int word(int i) const {
    return ptx::uniform(static_cast<int>(ptx::load_shared_4(notice() + static_cast<uint32_t>(i) * 4)));
  }
  __device__ int steps() const { return word(8); }
  __device__ Sm90Place place() const { return {word(0), word(1), word(2)}; }
  __device__ Sm90Sequence sequence() const { return {word(3), word(4), word(5), word(6), word(7)}; }
  __device__ Sm90Work work() const {
    Sm90Work w{place()};
    w.sequence = sequence();
    w.first_step = 0;
    w.end_step = steps();
    w.positions = {word(9), word(10), word(11), word(12)};
    w.bits = reinterpret_cast<const uint32_t*>(static_cast<uint64_t>(static_cast<uint32_t>(word(14))) << 32 |
                                               static_cast<uint32_t>(word(13)));
    return w;
  }
  __device__ void done(int lane) {
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(empty());
    ring.next();
  }
};

}  // namespace
}  // namespace attnmux
