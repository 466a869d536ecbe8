// SPDX-License-Identifier: Apache-2.0
// The producer of an instance whose tiles come from a queue and whose steps may be hidden by masks: it looks up what
// comes next while the consumers compute, and hands it on by the board.
#pragma once

#include "kernels/cuda/flash/sm90_bias.cuh"
#include "kernels/cuda/flash/sm90_board.cuh"
#include "kernels/cuda/flash/sm90_producer.cuh"

namespace attnmux {
namespace {

// The steps of a tile that masks leave, from the last to the first. 32 steps are looked at together, a lane each.
struct Sm90LiveSteps {
  const uint8_t* states;  // of the tile's steps; null: all are live
  int first, end, lane;
  int chunk = -1;
  uint32_t live = 0, masked = 0, padded = 0;

  __device__ void look(int at) {
    chunk = at;
    const int step = chunk * 32 + lane;
    const bool inside = step >= first && step < end;
    uint32_t state = inside ? kSm90StepLive : 0;
    if (inside && states != nullptr) state = states[step];
    live = __ballot_sync(0xFFFFFFFFu, (state & kSm90StepLive) != 0);
    masked = __ballot_sync(0xFFFFFFFFu, (state & kSm90StepMasked) != 0);
    padded = __ballot_sync(0xFFFFFFFFu, (state & kSm90StepPadded) != 0);
  }
  // How many there are; then next() gives the last of them.
  __device__ int start() {
    if (first >= end) return 0;
    int count = states == nullptr ? end - first : 0;
    const int last = (end - 1) / 32;
    if (states != nullptr) {
      for (int i = first / 32; i < last; ++i) {
        look(i);
        count += __popc(live);
      }
    }
    look(last);
    return states == nullptr ? count : count + __popc(live);
  }
  struct Step {
    int step;
    uint32_t states;
  };
  __device__ Step next() {
    while (live == 0) look(chunk - 1);
    const int bit = 31 - __clz(static_cast<int>(live));
    live ^= 1u << bit;
    return {chunk * 32 + bit, (masked >> bit & 1) * kSm90StepMasked | (padded >> bit & 1) * kSm90StepPadded};
  }
};

template <FlashSm90Tile kTile, FlashSm90Features kFeatures>
struct Sm90Feed {
  using L = FlashSm90Layout<kTile>;
  static constexpr bool kAll = kFeatures == FlashSm90Features::kAll;
  Sm90Producer<kTile, kFeatures> producer;
  Sm90Board<kTile> board;
  Sm90BiasSource<kTile> bias;

  // Which packed sequence has this place: 32 candidates are tried at a time.
  __device__ int find_sequence(int place) const {
    const FlashSm90Queue& queue = producer.call.queue;
    int low = 0, high = static_cast<int>(producer.call.p.batch);
    while (high - low > 1) {
      const int stride = (high - low + 31) / 32, probe = low + producer.lane * stride;
      const bool at_or_before = probe < high && queue.first_place[probe] <= place;
      low += (__popc(__ballot_sync(0xFFFFFFFFu, at_or_before)) - 1) * stride;
      high = min(low + stride, high);
    }
    return low;
  }

  // Tiles of a head of a packed sequence run side by side; where masks by position make them differ, those with most
  // keys come first, of all heads.
  __device__ Sm90Place locate_packed(int place) const {
    const FlashSm90Call& call = producer.call;
    const int index = find_sequence(place), b = call.queue.order[index];
    const int within = place - call.queue.first_place[index], heads = static_cast<int>(call.p.num_heads_q);
    const int tiles = (call.queue.first_place[index + 1] - call.queue.first_place[index]) / heads;
    if (call.p.window_left >= 0 || call.p.window_right >= 0) {
      const int before = within / heads;
      return {b, within - before * heads, (tiles - 1 - before) * L::kM};
    }
    const int head = within / tiles;
    return {b, head, (within - head * tiles) * L::kM};
  }

  __device__ int64_t item_of(const Sm90Place& place) const {
    const FlashSm90Keys& keys = producer.call.keys;
    return place.b * keys.batch_items + place.head * keys.head_items + place.first_query / L::kM * keys.tile_items;
  }

  __device__ void tile(Sm90Work& w) {
    const FlashSm90Keys& keys = producer.call.keys;
    Sm90LiveSteps steps{nullptr, w.first_step, w.end_step, producer.lane};
    if (keys.states != nullptr) {
      const int64_t item = item_of(w);
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
      const Sm90Place at =
          call.queue.order != nullptr ? locate_packed(place) : locate<kTile, kFeatures>(call, place, 0);
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
