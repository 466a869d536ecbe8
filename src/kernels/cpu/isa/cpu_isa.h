// SPDX-License-Identifier: Apache-2.0
// Which instruction sets this machine can run, and what it is. An instruction set counts when the CPU has it (CPUID)
// and the operating system keeps its registers (XGETBV; for AMX also the permission that Linux wants to be asked for).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cpu/isa/isa_table.h"
#include "kernels/kernel.h"

namespace attnmux {

const char* cpu_isa_name(CpuIsa isa);
std::optional<CpuIsa> cpu_isa_named(std::string_view name);

// The highest row of the table that the machine can run. Looked up once; asks for the AMX permission if there is AMX.
CpuIsa detected_cpu_isa();

// Caps what kernels may use (ATTNMUX_MAX_CPU_ISA). Calls under way are not affected.
void set_cpu_isa_cap(CpuIsa cap);
CpuIsa cpu_isa_cap();

// The lower of the two.
CpuIsa usable_cpu_isa();

// 1 if kernels for `isa` may run; 0 with a reason, unless that is null.
int32_t cpu_isa_available(CpuIsa isa, attnmux_reason* reason);

struct CpuCache {
  int level;
  std::string type;  // "Data", "Instruction", "Unified"
  int64_t bytes;
};

// What `attnmux doctor` prints. Fields that the system does not tell are empty.
struct CpuDescription {
  std::string brand;
  std::vector<CpuCache> caches;  // of the first CPU
};
CpuDescription describe_cpu();

}  // namespace attnmux
