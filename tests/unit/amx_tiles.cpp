// SPDX-License-Identifier: Apache-2.0
// Compiled for AMX (tests/CMakeLists.txt), hence without GoogleTest and the standard library, whose inline functions
// other files share.
#if defined(__x86_64__)

#include "unit/amx_tiles.h"

#include "kernels/cpu/flash/amx_tiles-inl.h"
#include "kernels/cpu/flash/avx512_vector-inl.h"
#include "kernels/cpu/flash/vector-inl.h"
#include "kernels/cpu/isa/flush_denormals.h"
#include "support/tile_model-inl.h"

namespace attnmux {
namespace {

template <class Tiles>
void multiply(const float* left, const float* right, float* sum, int stride, int repeats) {
  const DenormalMode mode = flush_denormals();
  Tiles::configure();
  Tiles::template load<3>(sum, stride);
  Tiles::template load<5>(left, stride);
  Tiles::template load<6>(right, stride);
  for (int i = 0; i < repeats; ++i) Tiles::template multiply_pairs<3, 5, 6>();
  Tiles::template store<3>(sum, stride);
  Tiles::release();
  restore_denormals(mode);
}

}  // namespace

namespace test {

void multiply_on_amx(const float* left, const float* right, float* sum, int stride, int repeats) {
  multiply<AmxTiles>(left, right, sum, stride, repeats);
}
void multiply_on_amx_model(const float* left, const float* right, float* sum, int stride, int repeats) {
  multiply<ModelTiles>(left, right, sum, stride, repeats);
}

}  // namespace test
}  // namespace attnmux

#endif
