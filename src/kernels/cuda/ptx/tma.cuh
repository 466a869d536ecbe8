// SPDX-License-Identifier: Apache-2.0
// Copies of tiles by the tensor memory accelerator, sm90 and newer. PTX ISA, "Data Movement and Conversion
// Instructions: Asynchronous copy", its parts on tensor copies, and "Async proxy".
#pragma once

#include <cstdint>

#include "kernels/cuda/runtime/tensor_map.h"

namespace attnmux::ptx {
namespace {

// L2 keeps what many blocks read, and lets go what is read once: the encodings of "createpolicy.fractional" for all of
// an access.
constexpr uint64_t kEvictFirst = 0x12F0000000000000, kEvictLast = 0x14F0000000000000;

// "prefetch.tensormap".
__device__ inline void prefetch_tensor_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// "cp.async.bulk.tensor", four dimensions, innermost coordinate first: the box at these coordinates, zeros where it
// lies outside of the tensor; its bytes count at the barrier.
__device__ inline void load_box(uint32_t to, const TensorMap& map, uint32_t barrier, int c0, int c1, int c2, int c3,
                                uint64_t cache_policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "l"(cache_policy)
      : "memory");
}

// The same with ".multicast::cluster": into all `blocks` blocks of the cluster, at the same addresses.
__device__ inline void load_box_in_cluster(uint32_t to, const TensorMap& map, uint32_t barrier, int c0, int c1, int c2,
                                           int c3, uint64_t cache_policy, int blocks) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %8, %7;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "l"(cache_policy),
      "h"(static_cast<uint16_t>((1 << blocks) - 1))
      : "memory");
}

// "fence.proxy.async": what this thread wrote to shared memory is seen by copies and by wgmma that come after.
__device__ inline void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace
}  // namespace attnmux::ptx
