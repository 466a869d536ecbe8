// SPDX-License-Identifier: Apache-2.0
// Flushes subnormal numbers to zero on this thread: an assist for one costs about 150 cycles on Intel, and the tail of
// a softmax is full of them. A task of a kernel calls flush_denormals() first and restore_denormals() last, so that the
// caller's own modes come back.
//
// Two functions and no guard object: a destructor needs an exception table, and with it comes a weak symbol, which
// files for wide instruction sets must not have. Nothing in a kernel throws. Internal linkage for the reason that
// kernels/kernel.h gives.
#pragma once

#include <cstdint>

namespace attnmux {
namespace {

// The thread's control register for floating point as it was.
struct DenormalMode {
  uint64_t control;
};

[[maybe_unused]] inline DenormalMode flush_denormals() {
#if defined(__x86_64__)
  constexpr uint32_t kFlushToZero = 1u << 15, kDenormalsAreZero = 1u << 6;
  const uint32_t control = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(control | kFlushToZero | kDenormalsAreZero);
  return {control};
#elif defined(__aarch64__)
  constexpr uint64_t kFlushToZero = uint64_t{1} << 24;
  uint64_t control;
  __asm__ volatile("mrs %0, fpcr" : "=r"(control));
  __asm__ volatile("msr fpcr, %0" : : "r"(control | kFlushToZero));
  return {control};
#else
  return {0};
#endif
}

// On x86-64 this also puts back the sticky exception flags: those that a kernel raised are not the caller's business.
[[maybe_unused]] inline void restore_denormals([[maybe_unused]] DenormalMode mode) {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr(static_cast<uint32_t>(mode.control));
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(mode.control));
#endif
}

}  // namespace
}  // namespace attnmux
