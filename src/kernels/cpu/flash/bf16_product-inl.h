// SPDX-License-Identifier: Apache-2.0
// What AVX-512 BF16 adds to avx512_vector-inl.h.
#pragma once

#include "kernels/cpu/flash/avx512_vector-inl.h"
#include "kernels/cpu/flash/vector-inl.h"

namespace attnmux {
namespace {

// Pairs of bf16, products and sums in fp32.
struct Bf16Product {
  static constexpr int kElements = 2;
  static constexpr int kExp2Degree = 4;  // P is rounded to bf16, but the log-sum-exp shows 2.9e-6

  static F madd(F a, F b, F c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }

  // Two rows of P become one row of units.
  static void store_weights(float* to, const F (&p)[2]) { store(to, pair_bf16(p[0], p[1])); }
};

}  // namespace
}  // namespace attnmux
