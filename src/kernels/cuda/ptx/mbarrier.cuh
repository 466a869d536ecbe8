// SPDX-License-Identifier: Apache-2.0
// Barriers in shared memory that count arrivals and bytes, sm90 and newer; and the named barriers of a block. PTX ISA,
// "Parallel Synchronization and Communication Instructions: mbarrier" and "bar, barrier".
#pragma once

#include <cstdint>

namespace attnmux::ptx {
namespace {

// "mbarrier.init": a phase ends after `arrivals` arrivals, when all bytes that were announced have come.
__device__ inline void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// "membar, fence: fence.mbarrier_init": makes initialised barriers visible to the copy engine.
__device__ inline void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// "mbarrier.arrive".
__device__ inline void mbarrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The same at the barrier with this address in block `rank` of the cluster; "Data Movement and Conversion Instructions:
// mapa". It says that this block has read something, and publishes no writes to the other: a release at the scope of
// the cluster would be a fence of all memory.
__device__ inline void mbarrier_arrive_in_cluster(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

// "mbarrier.arrive" with ".expect_tx": arrives, and lets the phase wait for `bytes` of copies.
__device__ inline void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// "mbarrier.try_wait": waits until the phase of this parity has ended. Phases count from 0, so a fresh barrier lets
// waits for parity 1 pass.
__device__ inline void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        "selp.u32 %0, 1, 0, done;\n"
        "}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (done == 0);
}

// "barrier.cluster": all threads of all blocks of the cluster.
__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// "Special Registers: %cluster_ctarank".
__device__ inline uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// "bar.sync" and "bar.arrive": named barrier `id` of 0 to 15, for `threads` threads in all.
__device__ inline void named_barrier_sync(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void named_barrier_arrive(uint32_t id, uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace
}  // namespace attnmux::ptx
