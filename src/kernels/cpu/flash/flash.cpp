// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/flash/flash.h"

#include "kernels/cpu/flash/decode_layout.h"
#include "kernels/cpu/flash/flash_run.h"
#include "kernels/cpu/isa/cpu_isa.h"

namespace attnmux {
namespace {

template <const Blocking& blocking>
size_t workspace_bytes(const Problem* p, int32_t num_threads) {
  return static_cast<size_t>(workspace_of(*p, blocking, num_threads));
}

template <CpuIsa isa>
int32_t available(Reason* reason) {
  return cpu_isa_available(isa, reason);
}

using Run = attnmux_code (*)(const Problem*, const RunContext*, attnmux_error*);

constexpr uint32_t kAllDtypes = 1u << ATTNMUX_FP32 | 1u << ATTNMUX_FP16 | 1u << ATTNMUX_BF16;

template <CpuIsa isa, const Blocking& blocking>
constexpr Kernel make_kernel(const char* name, Run run, uint32_t dtypes = kAllDtypes) {
  Kernel kernel{};
  kernel.struct_size = sizeof(Kernel);
  kernel.device_type = ATTNMUX_CPU;
  kernel.name = name;
  kernel.features = ((uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1) & ~ATTNMUX_DESCALE;
  kernel.dtypes = dtypes;
  for (const int dtype : {ATTNMUX_FP32, ATTNMUX_FP16}) {
    if ((dtypes >> dtype & 1) != 0) kernel.accuracy[dtype] = ATTNMUX_EXACT;
  }
  // Pairs of bf16 are multiplied with P rounded to bf16; elsewhere bf16 is widened to fp32 and nothing is rounded.
  kernel.accuracy[ATTNMUX_BF16] = blocking.multiplies_bf16 ? ATTNMUX_16BIT : ATTNMUX_EXACT;
  kernel.available = isa == CpuIsa::kBaseline ? nullptr : available<isa>;
  kernel.workspace_bytes = workspace_bytes<blocking>;
  kernel.run = run;
  return kernel;
}

}  // namespace

#if defined(__x86_64__)
#define ATTNMUX_RUN_X86(run) run
#else
#define ATTNMUX_RUN_X86(run) nullptr  // `available` refuses before anybody could call it
#endif

constexpr Kernel kCpuFlashBaseline =
    make_kernel<CpuIsa::kBaseline, kBlockingBaseline>("cpu_flash_baseline", run_flash_baseline);
constexpr Kernel kCpuFlashAvx2 =
    make_kernel<CpuIsa::kAvx2, kBlockingAvx2>("cpu_flash_avx2", ATTNMUX_RUN_X86(run_flash_avx2));
constexpr Kernel kCpuFlashAvx512 =
    make_kernel<CpuIsa::kAvx512, kBlockingAvx512>("cpu_flash_avx512", ATTNMUX_RUN_X86(run_flash_avx512));
constexpr Kernel kCpuFlashAvx512Bf16 = make_kernel<CpuIsa::kAvx512Bf16, kBlockingAvx512Bf16>(
    "cpu_flash_avx512_bf16", ATTNMUX_RUN_X86(run_flash_avx512_bf16));
// Tiles multiply bf16 alone; for fp32 and fp16 the next kernel of a backend is as good as any.
constexpr Kernel kCpuFlashAmx =
    make_kernel<CpuIsa::kAmx, kBlockingAmx>("cpu_flash_amx", ATTNMUX_RUN_X86(run_flash_amx), 1u << ATTNMUX_BF16);

}  // namespace attnmux
