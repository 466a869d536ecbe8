// SPDX-License-Identifier: Apache-2.0
// Registers of a warpgroup (four warps), values that are the same in a warp, and grids that follow each other, sm90a.
#pragma once

#include <cstdint>

namespace attnmux::ptx {
namespace {

// PTX ISA, "Miscellaneous Instructions: setmaxnreg": all warps of the warpgroup execute it.
template <int registers>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

// threadIdx.x, asked for behind the compiler's back: what follows from it is worked out where it is used, and holds no
// register before.
__device__ inline int thread_again() {
  int x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}

// "Parallel Synchronization and Communication Instructions: griddepcontrol": waits until the grid before is done and
// its memory is seen, where this one was launched to start earlier; and lets the next one start early.
__device__ inline void wait_for_grid_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ inline void let_next_grid_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

// The first lane's value in every lane. The compiler sees that the result is the same in the whole warp: it then keeps
// what depends on it in uniform registers, and branches on it leave the warpgroup converged, without which the products
// of a warpgroup are serialised.
__device__ inline int uniform(int x) { return __shfl_sync(0xFFFFFFFFu, x, 0); }

}  // namespace
}  // namespace attnmux::ptx
