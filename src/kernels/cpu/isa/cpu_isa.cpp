// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/isa/cpu_isa.h"

#include "kernels/cpu/isa/isa_table.h"
#include "kernels/kernel.h"

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace attnmux {
namespace {

constexpr int kLast = static_cast<int>(CpuIsa::kAmx);
constinit std::atomic<int> cap{kLast};

const IsaRow& row(CpuIsa isa) { return kIsaTable[static_cast<int>(isa)]; }

#if defined(__x86_64__)
struct CpuBits {
  uint32_t leaf1_ecx = 0, leaf7_ebx = 0, leaf7_ecx = 0, leaf7_edx = 0, leaf71_eax = 0;
  uint64_t xcr0 = 0;
};

CpuBits read_cpu_bits() {
  CpuBits bits;
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) != 0) bits.leaf1_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
    const uint32_t subleaves = a;
    bits.leaf7_ebx = b;
    bits.leaf7_ecx = c;
    bits.leaf7_edx = d;
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) bits.leaf71_eax = a;
  }
  if ((bits.leaf1_ecx & kBit(27)) != 0) {  // OSXSAVE: the operating system lets us read XCR0
    uint32_t low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    bits.xcr0 = uint64_t{high} << 32 | low;
  }
  return bits;
}

bool has(const CpuBits& have, const IsaRow& want) {
  return (have.leaf1_ecx & want.leaf1_ecx) == want.leaf1_ecx && (have.leaf7_ebx & want.leaf7_ebx) == want.leaf7_ebx &&
         (have.leaf7_ecx & want.leaf7_ecx) == want.leaf7_ecx && (have.leaf7_edx & want.leaf7_edx) == want.leaf7_edx &&
         (have.leaf71_eax & want.leaf71_eax) == want.leaf71_eax && (have.xcr0 & want.xcr0) == want.xcr0;
}

// Linux hands out the 8 KiB of tile state on request (Documentation/arch/x86/xstate.rst). A refusal means "not usable", as
// when a thread's alternate signal stack is too small for it.
bool amx_permitted() {
#if defined(__linux__)
  constexpr long kGetPermission = 0x1022, kRequestPermission = 0x1023, kTileData = 18;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return false;
  uint64_t granted = 0;
  return syscall(SYS_arch_prctl, kGetPermission, &granted) == 0 && (granted >> kTileData & 1) != 0;
#else
  return false;
#endif
}
#endif

CpuIsa detect() {
#if defined(__x86_64__)
  const CpuBits bits = read_cpu_bits();
  CpuIsa best = CpuIsa::kBaseline;
  for (const IsaRow& candidate : kIsaTable) {
    if (!has(bits, candidate)) break;
    if (candidate.isa == CpuIsa::kAmx && !amx_permitted()) break;
    best = candidate.isa;
  }
  return best;
#else
  return CpuIsa::kBaseline;
#endif
}

size_t cache_size(int name) {
#if defined(__linux__)
  const long bytes = sysconf(name);
  return bytes > 0 ? static_cast<size_t>(bytes) : 0;
#else
  (void)name;
  return 0;
#endif
}

}  // namespace

std::string_view cpu_isa_name(CpuIsa isa) { return row(isa).name; }

std::optional<CpuIsa> cpu_isa_named(std::string_view name) {
  for (const IsaRow& candidate : kIsaTable) {
    if (candidate.name == name) return candidate.isa;
  }
  return std::nullopt;
}

CpuIsa detected_cpu_isa() {
  static const CpuIsa isa = detect();
  return isa;
}

CpuIsa usable_cpu_isa() {
  const int allowed = cap.load(std::memory_order_relaxed), detected = static_cast<int>(detected_cpu_isa());
  return static_cast<CpuIsa>(allowed < detected ? allowed : detected);
}

void set_cpu_isa_cap(CpuIsa isa) { cap.store(static_cast<int>(isa), std::memory_order_relaxed); }

int32_t cpu_isa_available(CpuIsa isa, attnmux_reason* reason) {
  if (isa <= usable_cpu_isa()) return 1;
  if (isa > detected_cpu_isa()) {
    refuse(reason, "needs %s; this CPU and operating system have %s", row(isa).title, row(detected_cpu_isa()).title);
  } else {
    refuse(reason, "needs %s; ATTNMUX_MAX_CPU_ISA=%s forbids it", row(isa).title, cpu_isa_name(usable_cpu_isa()).data());
  }
  return 0;
}

std::string cpu_brand() {
#if defined(__x86_64__)
  uint32_t words[12] = {};
  if (__get_cpuid_max(0x80000000, nullptr) >= 0x80000004) {
    for (uint32_t i = 0; i < 3; ++i) __get_cpuid(0x80000002 + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]);
    std::string brand(reinterpret_cast<const char*>(words), sizeof(words));
    brand = brand.substr(0, brand.find('\0'));
    while (!brand.empty() && brand.back() == ' ') brand.pop_back();
    brand = brand.substr(brand.find_first_not_of(' ') == std::string::npos ? 0 : brand.find_first_not_of(' '));
    if (!brand.empty()) return brand;
  }
#endif
  return "unknown CPU";
}

CpuCaches cpu_caches() {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  return {cache_size(_SC_LEVEL1_DCACHE_SIZE), cache_size(_SC_LEVEL2_CACHE_SIZE), cache_size(_SC_LEVEL3_CACHE_SIZE)};
#else
  return {};
#endif
}

}  // namespace attnmux
