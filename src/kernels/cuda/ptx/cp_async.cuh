// SPDX-License-Identifier: Apache-2.0
// Copies from global to shared memory that do not pass through registers, sm80 and newer. PTX ISA,
// "Data Movement and Conversion Instructions: Asynchronous copy", its part on non-bulk copies.
#pragma once

#include <cstdint>

namespace attnmux::ptx {
namespace {

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes, past L1, of which only the first `bytes` are read and the rest becomes zero. Both addresses are multiples
// of 16.
__device__ inline void cp_async_16(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// 4 bytes, which go through L1 too.
__device__ inline void cp_async_4(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// 16 bytes from registers; "Data Movement and Conversion Instructions: st".
__device__ inline void store_shared_16(uint32_t to, const uint32_t (&word)[4]) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]),
               "r"(word[3])
               : "memory");
}

__device__ inline void store_shared_4(uint32_t to, uint32_t word) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
}
__device__ inline void store_shared_1(uint32_t to, uint32_t byte) {
  asm volatile("st.shared.u8 [%0], %1;" ::"r"(to), "r"(byte) : "memory");
}

// "Data Movement and Conversion Instructions: ld".
__device__ inline uint32_t load_shared_2(uint32_t from) {
  uint16_t r;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(r) : "r"(from) : "memory");
  return r;
}
__device__ inline uint32_t load_shared_4(uint32_t from) {
  uint32_t r;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r) : "r"(from) : "memory");
  return r;
}
__device__ inline uint4 load_shared_16(uint32_t from) {
  uint4 r;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(from)
               : "memory");
  return r;
}
__device__ inline float2 load_shared_float2(uint32_t from) {
  float2 r;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(r.x), "=f"(r.y) : "r"(from) : "memory");
  return r;
}

__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `pending` groups of this thread are under way.
template <int pending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

}  // namespace
}  // namespace attnmux::ptx
