// SPDX-License-Identifier: Apache-2.0
// Flushes subnormal numbers to zero on this thread for as long as the object lives: an assist for one costs about 150
// cycles on Intel, and the tail of a softmax is full of them. The caller's own modes come back afterwards.
// Internal linkage for the reason that kernels/kernel.h gives.
#pragma once

#include <cstdint>

namespace attnmux {
namespace {

class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(saved_ | kFlushToZero | kDenormalsAreZero); }
  // The sticky exception flags that the kernel raised are not the caller's business either.
  ~FlushDenormals() { __builtin_ia32_ldmxcsr(saved_); }

 private:
  static constexpr uint32_t kFlushToZero = 1u << 15, kDenormalsAreZero = 1u << 6;
  uint32_t saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved_ | kFlushToZero));
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  static constexpr uint64_t kFlushToZero = uint64_t{1} << 24;
  uint64_t saved_;
#else
  FlushDenormals() = default;
  ~FlushDenormals() {}
#endif

 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace
}  // namespace attnmux
