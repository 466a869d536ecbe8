// SPDX-License-Identifier: Apache-2.0
// One row per instruction set: its word, what a person calls it, and the bits that must be set for it.
// CPUID bits: Intel SDM volume 2A, table 3-8; AMD APM volume 3, appendix E. XCR0 bits: SDM volume 1, section 13.1.
#pragma once

#include "kernels/cpu/isa/cpu_isa.h"

#include <cstdint>

namespace attnmux {

struct IsaRow {
  CpuIsa isa;
  std::string_view name;
  const char* title;
  // Required bits of CPUID leaf 1 ecx, leaf 7.0 ebx, ecx and edx, leaf 7.1 eax; and of XCR0.
  uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf71_eax;
  uint64_t xcr0;
};

inline constexpr uint32_t kBit(int bit) { return uint32_t{1} << bit; }

inline constexpr IsaRow kIsaTable[] = {
    {CpuIsa::kBaseline, "baseline", "the baseline", 0, 0, 0, 0, 0, 0},
    // FMA 12, OSXSAVE 27, AVX 28, F16C 29; BMI1 3, AVX2 5, BMI2 8. XCR0: SSE 1, AVX 2.
    {CpuIsa::kAvx2, "avx2", "AVX2 with FMA", kBit(12) | kBit(27) | kBit(28) | kBit(29), kBit(3) | kBit(5) | kBit(8), 0, 0, 0, 0x6},
    // AVX-512 F 16, DQ 17, CD 28, BW 30, VL 31. XCR0: opmask 5, zmm 6 and 7.
    {CpuIsa::kAvx512, "avx512", "AVX-512 (F, BW, DQ, VL, CD)", 0, kBit(16) | kBit(17) | kBit(28) | kBit(30) | kBit(31), 0, 0, 0, 0xe6},
    // VNNI 11; BF16 5.
    {CpuIsa::kAvx512Bf16, "avx512_bf16", "AVX-512 BF16 and VNNI", 0, 0, kBit(11), 0, kBit(5), 0xe6},
    // AMX-BF16 22, TILE 24, INT8 25. XCR0: tile configuration 17, tile data 18.
    {CpuIsa::kAmx, "amx", "AMX (tile, bf16, int8)", 0, 0, 0, kBit(22) | kBit(24) | kBit(25), 0, 0x600e6},
};

}  // namespace attnmux
