// SPDX-License-Identifier: Apache-2.0
// Which CPU instruction sets may be used: what the CPU has, what the operating system saves, what the user allows.
#pragma once

#include <attnmux/c/plugin.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace attnmux {

/// In rising order; each includes those before it.
enum class CpuIsa { kBaseline, kAvx2, kAvx512, kAvx512Bf16, kAmx };

/// The words of ATTNMUX_MAX_CPU_ISA: baseline, avx2, avx512, avx512_bf16, amx.
std::string_view cpu_isa_name(CpuIsa isa);
std::optional<CpuIsa> cpu_isa_named(std::string_view name);

/// The highest that CPU and operating system support; asks Linux for the AMX tiles once.
CpuIsa detected_cpu_isa();
/// The lower of detected_cpu_isa() and the cap.
CpuIsa usable_cpu_isa();
/// From ATTNMUX_MAX_CPU_ISA, before the first kernel is chosen.
void set_cpu_isa_cap(CpuIsa isa);

/// 1 if `isa` may be used; else 0, and `reason` (unless null) says what is missing. For attnmux_kernel.available.
int32_t cpu_isa_available(CpuIsa isa, attnmux_reason* reason);

/// "AMD EPYC 9965 192-Core Processor"; "unknown CPU" where the CPU does not say.
std::string cpu_brand();

struct CpuCaches {
  size_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;  // 0: unknown
};
CpuCaches cpu_caches();

}  // namespace attnmux
