// SPDX-License-Identifier: Apache-2.0
// THE table of CPU instruction sets: one row each, rising; a row needs everything that the rows above it need.
// cmake/CpuIsa.cmake holds the compiler flags under the same names.
#pragma once

#include <cstdint>

namespace attnmux {

enum class CpuIsa : uint8_t { kBaseline, kAvx2, kAvx512, kAvx512Bf16, kAmx };

// Feature bits, as CPUID reports them.
struct CpuidBits {
  uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax;
};

struct CpuIsaRow {
  CpuIsa isa;
  const char* name;   // in ATTNMUX_MAX_CPU_ISA, in file names and in kernel names
  const char* title;  // in messages
  CpuidBits cpuid;
  uint64_t xcr0;  // register state that the operating system must save and restore (XGETBV)
};

namespace isa_bits {
constexpr uint32_t bit(int i) { return uint32_t{1} << i; }
constexpr uint32_t kFma = bit(12), kOsxsave = bit(27), kAvx = bit(28), kF16c = bit(29);  // leaf 1 ecx
constexpr uint32_t kAvx2 = bit(5), kBmi2 = bit(8);                                       // leaf 7 ebx
constexpr uint32_t kAvx512 =
    bit(16) /*F*/ | bit(17) /*DQ*/ | bit(28) /*CD*/ | bit(30) /*BW*/ | bit(31) /*VL*/;  // leaf 7 ebx
constexpr uint32_t kVnni = bit(11);                                                     // leaf 7 ecx
constexpr uint32_t kAmx = bit(22) /*BF16*/ | bit(24) /*TILE*/ | bit(25) /*INT8*/;       // leaf 7 edx
constexpr uint32_t kBf16 = bit(5);                                                      // leaf 7.1 eax
constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe0, kTileState = 0x60000;
}  // namespace isa_bits

// clang-format off
constexpr CpuIsaRow kCpuIsas[] = {
  // isa                 name           title           leaf 1 ecx                              7 ebx          7 ecx  7 edx  7.1 eax  XCR0
  {CpuIsa::kBaseline,   "baseline",    "the baseline", {0,                                      0,              0,     0,     0},     0},
  {CpuIsa::kAvx2,       "avx2",        "AVX2",         {isa_bits::kOsxsave | isa_bits::kAvx | isa_bits::kFma | isa_bits::kF16c,
                                                                                                isa_bits::kAvx2 | isa_bits::kBmi2,
                                                                                                                0,     0,     0},     isa_bits::kYmmState},
  {CpuIsa::kAvx512,     "avx512",      "AVX-512",      {0,                    isa_bits::kAvx512,                0,     0,     0},     isa_bits::kZmmState},
  {CpuIsa::kAvx512Bf16, "avx512_bf16", "AVX-512 BF16", {0, 0, isa_bits::kVnni,                                         0, isa_bits::kBf16}, 0},
  {CpuIsa::kAmx,        "amx",         "AMX",          {0, 0, 0, isa_bits::kAmx,                                              0},     isa_bits::kTileState},
};
// clang-format on

constexpr const CpuIsaRow& cpu_isa_row(CpuIsa isa) { return kCpuIsas[static_cast<int>(isa)]; }

consteval bool rows_follow_enum() {
  for (int i = 0; i <= static_cast<int>(CpuIsa::kAmx); ++i) {
    if (static_cast<int>(kCpuIsas[i].isa) != i) return false;
  }
  return sizeof(kCpuIsas) / sizeof(kCpuIsas[0]) == static_cast<int>(CpuIsa::kAmx) + 1;
}
static_assert(rows_follow_enum(), "one row per CpuIsa, in the order of the enum");

}  // namespace attnmux
