// SPDX-License-Identifier: Apache-2.0
// The producer of an instance whose tiles come from a queue and whose steps may be hidden by masks: it looks up what
// comes next while the consumers compute, and hands it on by the board.
#pragma once

#include "kernels/cuda/flash/sm90_bias.cuh"
#include "kernels/cuda/flash/sm90_board.cuh"
#include "kernels/cuda/flash/sm90_producer.cuh"
#include "kernels/cuda/flash/sm90_queue.cuh"

namespace attnmux {
namespace {

template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90Feed {
  using L = FlashSm90Layout<kTile>;
  static constexpr bool kAll = kFeatures == FlashSm90Features::kAll;
  Sm90Producer<kTile, kFeatures> producer;
  Sm90Board<kTile> board;
  Sm90BiasSource<kTile> bias;

  __device__ void tile(Sm90Work& w) {
    const FlashSm90Keys& keys = producer.call.keys;
    Sm90LiveSteps steps{nullptr, w.first_step, w.end_step, producer.lane};
    if (keys.states != nullptr) {
      const int64_t item = item_of(keys, w, L::kM);
      steps.states = keys.states + item * keys.steps;
      w.bits = keys.bits + item * keys.steps * keys.rows * 4 * keys.words;
    }
    int count = steps.start();
    board.write(w, count, producer.lane);
    if (count == 0) return;
    auto step = steps.next();
    producer.load_k(w, step.step, step_note(step.step, step.states));
    producer.load_q(w);
    load_bias(w, step.step);
    while (--count > 0) {
      const auto next = steps.next();
      producer.load_k(w, next.step, step_note(next.step, next.states));
      producer.load_v(w, step.step, (step.states & kSm90StepPadded) != 0);
      load_bias(w, next.step);
      step = next;
    }
    producer.load_v(w, step.step, (step.states & kSm90StepPadded) != 0);
  }

  __device__ void load_bias(const Sm90Work& w, int step) {
    if constexpr (kAll) {
      if (given(producer.call.p.bias)) bias.load(w, step);
    }
  }

  // The next place is asked for before the copies of a tile, and the answer is there when they are under way.
  __device__ void run() {
    const FlashSm90Call& call = producer.call;
    const int blocks = static_cast<int>(gridDim.x);
    const int places = call.queue.order != nullptr ? call.queue.first_place[call.p.batch] : call.items * call.q_tiles;
    for (int place = static_cast<int>(blockIdx.x); place < places;) {
      int next = place + blocks;
      if (call.queue.next != nullptr) {
        if (producer.lane == 0) next = blocks + atomicAdd(call.queue.next, 1);
      }
      const Sm90Place at = call.queue.order != nullptr ? locate_packed(call.queue, call.p, place, L::kM, producer.lane)
                                                       : locate<kTile, kFeatures>(call, place, 0);
      Sm90Work w = sm90_work_at<kTile, kFeatures>(call, at, {}, 0);
      tile(w);
      place = ptx::uniform(next);
    }
    board.write({}, -1, producer.lane);
    if constexpr (kAll) {
      if (given(call.p.bias)) bias.end();
    }
  }
};

}  // namespace
}  // namespace attnmux
