// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)

#include "kernels/cpu/flash/avx512_vector-inl.h"
#include "kernels/cpu/flash/flash_run.h"
#include "kernels/cpu/flash/layout.h"

namespace attnmux {
namespace {
constexpr Blocking kBlocking = kBlockingAmx;
}
}  // namespace attnmux

#include "kernels/cpu/flash/amx_tiles-inl.h"
#include "kernels/cpu/flash/tiled_fwd-inl.h"

namespace attnmux {

attnmux_code run_flash_amx(const Problem* p, const RunContext* context, attnmux_error* /*error*/) {
  return run_flash_bf16<TiledProduct<AmxTiles>>(*p, *context);
}

}  // namespace attnmux

#endif
