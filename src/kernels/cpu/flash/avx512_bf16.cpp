// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)

#include "kernels/cpu/flash/avx512_vector-inl.h"
#include "kernels/cpu/flash/flash_run.h"
#include "kernels/cpu/flash/layout.h"

namespace attnmux {
namespace {
constexpr Blocking kBlocking = kBlockingAvx512Bf16;
}
}  // namespace attnmux

#include "kernels/cpu/flash/bf16_product-inl.h"
#include "kernels/cpu/flash/flash_fwd-inl.h"

namespace attnmux {

attnmux_code run_flash_avx512_bf16(const Problem* p, const RunContext* context, attnmux_error* error) {
  return run_flash<Fp32Product, Bf16Product>(*p, *context, error);
}

}  // namespace attnmux

#endif
