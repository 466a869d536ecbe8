// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/isa/cpu_isa.h"

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace attnmux {
namespace {

enum class Obstacle { kNone, kCpu, kSystem, kPermission };

struct Detection {
  CpuIsa isa = CpuIsa::kBaseline;
  Obstacle next = Obstacle::kNone;  // what stands between it and the next row
};

#if defined(__x86_64__)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero where the CPU does not know the leaf.
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// XCR0: the register state that the operating system has switched on. Only with OSXSAVE is there such an instruction.
uint64_t enabled_state(uint32_t leaf1_ecx) {
  if ((leaf1_ecx & isa_bits::kOsxsave) == 0) return 0;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux gives a process the 8 KiB of tile registers only after it has asked (Documentation/arch/x86/xstate.rst). The
// kernel refuses when a thread's alternate signal stack could not hold them; then AMX counts as absent.
bool permitted(uint64_t xcr0) {
  if ((xcr0 & isa_bits::kTileState) == 0) return true;
#if defined(__linux__)
  constexpr long kGetPermission = 0x1022, kRequestPermission = 0x1023, kTileData = 18;
  unsigned long granted = 0;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return false;
  return syscall(SYS_arch_prctl, kGetPermission, &granted) == 0 &&
         (granted & isa_bits::kTileState) == isa_bits::kTileState;
#else
  return false;
#endif
}

Detection detect() {
  const Registers leaf1 = cpuid(1, 0), leaf7 = cpuid(7, 0);
  const Registers leaf7_1 = leaf7.eax >= 1 ? cpuid(7, 1) : Registers{};
  const uint64_t xcr0 = enabled_state(leaf1.ecx);
  const auto covers = [](auto have, auto need) { return (have & need) == need; };
  Detection found;
  for (const CpuIsaRow& row : kCpuIsas) {
    const CpuidBits& need = row.cpuid;
    const bool cpu = covers(leaf1.ecx, need.leaf1_ecx) && covers(leaf7.ebx, need.leaf7_ebx) &&
                     covers(leaf7.ecx, need.leaf7_ecx) && covers(leaf7.edx, need.leaf7_edx) &&
                     covers(leaf7_1.eax, need.leaf7_1_eax);
    found.next = !cpu                      ? Obstacle::kCpu
                 : !covers(xcr0, row.xcr0) ? Obstacle::kSystem
                 : !permitted(row.xcr0)    ? Obstacle::kPermission
                                           : Obstacle::kNone;
    if (found.next != Obstacle::kNone) break;
    found.isa = row.isa;
  }
  return found;
}

#else

Detection detect() { return {}; }

#endif

const Detection& detection() {
  static const Detection once = detect();
  return once;
}

std::atomic<CpuIsa> cap_{CpuIsa::kAmx};

}  // namespace

const char* cpu_isa_name(CpuIsa isa) { return cpu_isa_row(isa).name; }

std::optional<CpuIsa> cpu_isa_named(std::string_view name) {
  for (const CpuIsaRow& row : kCpuIsas) {
    if (name == row.name) return row.isa;
  }
  return std::nullopt;
}

CpuIsa detected_cpu_isa() { return detection().isa; }

void set_cpu_isa_cap(CpuIsa cap) { cap_.store(cap, std::memory_order_relaxed); }
CpuIsa cpu_isa_cap() { return cap_.load(std::memory_order_relaxed); }

CpuIsa usable_cpu_isa() {
  const CpuIsa cap = cpu_isa_cap(), detected = detected_cpu_isa();
  return cap < detected ? cap : detected;
}

int32_t cpu_isa_available(CpuIsa isa, attnmux_reason* reason) {
  const Detection& found = detection();
  const char* needed = cpu_isa_row(isa).title;
  if (isa > found.isa) {
#if defined(__x86_64__)
    const bool next = static_cast<int>(isa) == static_cast<int>(found.isa) + 1;
    if (next && found.next == Obstacle::kSystem) {
      refuse(reason, "needs %s; this CPU has it, but the operating system does not enable it", needed);
    } else if (next && found.next == Obstacle::kPermission) {
      refuse(reason, "needs %s; this CPU has it, but the operating system refused the permission to use it", needed);
    } else if (found.isa == CpuIsa::kBaseline) {
      refuse(reason, "needs %s, which this CPU does not have", needed);
    } else {
      refuse(reason, "needs %s; this CPU has %s", needed, cpu_isa_row(found.isa).title);
    }
#else
    refuse(reason, "needs an x86-64 CPU with %s", needed);
#endif
    return 0;
  }
  if (const CpuIsa cap = cpu_isa_cap(); isa > cap) {
    refuse(reason, "capped by ATTNMUX_MAX_CPU_ISA=%s", cpu_isa_name(cap));
    return 0;
  }
  return 1;
}

}  // namespace attnmux
