// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

/// Does every row of a (B, S, H, D) tensor, or of a mask or bias, start at a multiple of `bytes`?
inline bool rows_aligned(const Tensor& t, int64_t element_bytes, int64_t bytes) {
  if (reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(bytes) != 0) return false;
  for (int i = 0; i < 3; ++i) {
    if (t.shape[i] > 1 && t.strides[i] * element_bytes % bytes != 0) return false;
  }
  return true;
}

}  // namespace attnmux
