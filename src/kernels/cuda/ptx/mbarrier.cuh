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

// "bar.sync" and "bar.arrive": named barrier `id` of 0 to 15, for `threads` threads in all.
__device__ inline void named_barrier_sync(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void named_barrier_arrive(uint32_t id, uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace
}  // namespace attnmux::ptx
