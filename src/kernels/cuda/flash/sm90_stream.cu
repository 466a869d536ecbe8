// SPDX-License-Identifier: Apache-2.0
// The kernels that run before an instance of cuda_flash_sm90 that takes tiles from a queue.
#include <cuda_runtime.h>

#include "kernels/cuda/flash/sm90_stream.h"

namespace attnmux {
namespace {

constexpr uint32_t kAll = 0xFFFFFFFFu;
constexpr int kWarps = 8;

// Which of four neighbouring keys a mask keeps, one bit each; only the first `exist` are keys.
__device__ inline uint32_t four_kept(const Tensor& t, int64_t at, int64_t stride, int exist) {
  uint32_t kept = 0;
  const auto* bytes = element<const uint8_t>(t, at);
  if (stride == 1 && exist >= 4 && reinterpret_cast<uintptr_t>(bytes) % 4 == 0) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(bytes);
#pragma unroll
    for (int i = 0; i < 4; ++i) kept |= (word >> (8 * i) & 0xFF) != 0 ? 1u << i : 0;
    return kept;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) kept |= i < exist && bytes[i * stride] != 0 ? 1u << i : 0;
  return kept;
}

// Where an item begins in the masks; what is the same for all has one item, which stands for the first.
struct ItemPlace {
  int64_t b, head, tile;
};
__device__ inline ItemPlace place_of(const FlashSm90Keys& keys, int64_t item) {
  ItemPlace r{};
  if (keys.batch_items != 0) r.b = item / keys.batch_items;
  item -= r.b * keys.batch_items;
  if (keys.head_items != 0) r.head = item / keys.head_items;
  r.tile = item - r.head * keys.head_items;
  return r;
}

// What is found in a step.
struct Found {
  bool live = false, masked = false, padded = false;
};

// A warp looks at a row of a step, and writes its bits: lane l sees the keys 4l … 4l+3 of 128. In the products' layout
// lane q of a quad has the keys 8n + 2q + {0, 1}, which are votes of lane 2n + q/2 here.
__device__ inline void note_row(const Problem& p, const FlashSm90Keys& keys, const ItemPlace& at, int64_t query,
                                int first, int exist, int lane, uint32_t* bits, Found& found) {
  for (int word = 0; word < keys.words; ++word) {
    const int within = word * 128 + lane * 4, here = min(max(exist - within, 0), 4);
    const uint32_t all = (1u << here) - 1;
    uint32_t kept = all;
    if (here > 0 && given(p.key_padding)) {
      const Tensor& t = p.key_padding;
      kept = four_kept(t, at.b * t.strides[0] + (first + within) * t.strides[1], t.strides[1], here);
      found.padded = found.padded || kept != all;
    }
    if (here > 0 && given(p.dense_mask)) {
      const Tensor& t = p.dense_mask;
      const int64_t row = at.b * t.strides[0] + at.head * t.strides[1] + query * t.strides[2];
      kept &= four_kept(t, row + (first + within) * t.strides[3], t.strides[3], here);
    }
    found.live = found.live || kept != 0;
    found.masked = found.masked || kept != all;
    uint32_t votes[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) votes[i] = __ballot_sync(kAll, (kept >> i & 1) != 0);
    if (lane < 4) {
      const bool upper = lane % 2 != 0;
      const uint32_t even = (upper ? votes[2] : votes[0]) >> (lane / 2);
      const uint32_t odd = (upper ? votes[3] : votes[1]) >> (lane / 2);
      bits[lane * keys.words + word] = (even & 0x55555555u) | (odd & 0x55555555u) << 1;
    }
  }
}

// A block looks at one step of one item at a time.
__global__ void __launch_bounds__(32 * kWarps)
    note_keys(const __grid_constant__ Problem p, const __grid_constant__ FlashSm90Keys keys,
              const FlashSm90StepShape shape, int32_t* next) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (next != nullptr && blockIdx.x == 0 && threadIdx.x == 0) *next = 0;
  for (int64_t i = blockIdx.x; i < keys.items * keys.steps; i += gridDim.x) {
    const ItemPlace at = place_of(keys, i / keys.steps);
    const int first = static_cast<int>(i % keys.steps * shape.keys);
    const int exist = static_cast<int>(min_of(shape.keys, p.seqlen_kv - first));
    Found found;
    for (int row = warp; row < keys.rows; row += kWarps) {
      const int64_t query = at.tile * shape.rows + row;
      uint32_t* bits = keys.bits + (i * keys.rows + row) * 4 * keys.words;
      if (keys.rows > 1 && query >= p.seqlen_q) {
        // Its output is not stored, but a warp decides for all its rows when to rescale.
        if (lane < 4 * keys.words) bits[lane] = kAll;
        continue;
      }
      note_row(p, keys, at, query, first, exist, lane, bits, found);
    }
    const int live = __syncthreads_or(found.live), masked = __syncthreads_or(found.masked);
    const int padded = __syncthreads_or(found.padded);
    if (threadIdx.x == 0) {
      keys.states[i] = static_cast<uint8_t>((live != 0 ? kSm90StepLive : 0) | (masked != 0 ? kSm90StepMasked : 0) |
                                            (padded != 0 ? kSm90StepPadded : 0));
    }
  }
}

constexpr int kSorters = 1024;  // threads, and classes of length

// The sum of the values of the threads before this one; `total` is that of all.
__device__ inline int sum_before(int value, int (&warps)[32], int& total) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  int sum = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(kAll, sum, step);
    if (lane >= step) sum += other;
  }
  __syncthreads();  // everyone is done with the warps' sums of the time before
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  int before = 0;
  total = 0;
  for (int i = 0; i < kSorters / 32; ++i) {
    if (i < warp) before += warps[i];
    total += warps[i];
  }
  return before + sum - value;
}

// Packed sequences by falling number of keys, in one of kSorters classes each; which comes first within a class does
// not matter, since no result depends on who computes a tile.
__global__ void __launch_bounds__(kSorters, 1)
    order_sequences(const __grid_constant__ Problem p, const __grid_constant__ FlashSm90Queue queue, int tile_rows) {
  __shared__ int classes[kSorters], warps[32];
  const int thread = static_cast<int>(threadIdx.x), batch = static_cast<int>(p.batch);
  const auto class_of = [&](int b) {
    const int64_t shorter = sequence(p, b).key_length * kSorters / (p.seqlen_kv + 1);
    return kSorters - 1 - static_cast<int>(shorter);
  };
  if (thread == 0) *queue.next = 0;
  classes[thread] = 0;
  __syncthreads();
  for (int b = thread; b < batch; b += kSorters) atomicAdd(&classes[class_of(b)], 1);
  __syncthreads();
  int total;
  const int before = sum_before(classes[thread], warps, total);
  classes[thread] = before;
  __syncthreads();
  for (int b = thread; b < batch; b += kSorters) queue.order[atomicAdd(&classes[class_of(b)], 1)] = b;
  __syncthreads();
  int places = 0;
  for (int i = thread; i - thread < batch; i += kSorters) {
    const int mine =
        i < batch ? static_cast<int>(ceil_div(sequence(p, queue.order[i]).seqlen_q, tile_rows) * p.num_heads_q) : 0;
    const int first = places + sum_before(mine, warps, total);
    if (i < batch) queue.first_place[i] = first;
    places += total;
  }
  if (thread == 0) queue.first_place[batch] = places;
}

}  // namespace

int prepare_flash_sm90_stream(const Problem& p, const FlashSm90StepShape& shape, const FlashSm90Keys& keys,
                              const FlashSm90Queue& queue, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (keys.states != nullptr) {
    const int64_t blocks = min_of(keys.items * keys.steps, INT32_MAX);
    int32_t* next = queue.order == nullptr ? queue.next : nullptr;  // else that is the other's
    note_keys<<<static_cast<unsigned>(blocks), 32 * kWarps, 0, on>>>(p, keys, shape, next);
    if (const cudaError_t code = cudaGetLastError(); code != cudaSuccess) return code;
  }
  if (queue.order != nullptr) order_sequences<<<1, kSorters, 0, on>>>(p, queue, static_cast<int>(shape.rows));
  return cudaGetLastError();
}

}  // namespace attnmux
