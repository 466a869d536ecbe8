// SPDX-License-Identifier: Apache-2.0
// Compiled for AVX-512 BF16 (tests/CMakeLists.txt), hence without GoogleTest and the standard library, whose inline
// functions other files share.
#if defined(__x86_64__)

#include "conformance/tile_model.h"

#include "kernels/cpu/flash/avx512_vector-inl.h"
#include "kernels/cpu/flash/layout.h"

namespace attnmux {
namespace {
constexpr Blocking kBlocking = kBlockingAmx;
}
}  // namespace attnmux

#include "kernels/cpu/flash/tiled_fwd-inl.h"
#include "support/tile_model-inl.h"

namespace attnmux::test {

attnmux_code run_flash_on_tile_model(const Problem* p, const RunContext* context, attnmux_error* /*error*/) {
  return run_flash_bf16<TiledProduct<ModelTiles>>(*p, *context);
}

}  // namespace attnmux::test

#endif
