// SPDX-License-Identifier: Apache-2.0
// The scale of the scores: its sign goes into Q, its magnitude into the softmax.
#pragma once

#include "kernels/cpu/flash/pack-inl.h"
#include "kernels/cpu/flash/vector-inl.h"

namespace attnmux {
namespace {

// The scale, split so that it is positive: its sign goes into Q.
struct Scale {
  float sign;       // 1, -1, or 0 for a scale of zero
  float magnitude;  // of the score in natural units, per product
  float natural;    // of the score in natural units, per number that the softmax sees
  float base2;      // the same for the exponent of 2
  bool adjusts;     // softcap or bias: the softmax sees natural units
};

inline float clamped_to_float(double x) {
  return static_cast<float>(x < __FLT_MIN__ ? double{__FLT_MIN__} : x > double{__FLT_MAX__} ? double{__FLT_MAX__} : x);
}

inline Scale make_scale(const Problem& p) {
  Scale scale{};
  scale.sign = p.scale > 0 ? 1.0f : p.scale < 0 ? -1.0f : 0.0f;
  // A scale of zero made Q zero; any positive number does then.
  const double magnitude = p.scale > 0 ? p.scale : p.scale < 0 ? -p.scale : 1.0;
  scale.magnitude = clamped_to_float(magnitude);
  scale.adjusts = p.softcap > 0 || given(p.bias);
  scale.natural = scale.adjusts ? 1.0f : scale.magnitude;
  scale.base2 = clamped_to_float(scale.adjusts ? kLog2E : magnitude * kLog2E);
  return scale;
}

// A scale that is negative or zero goes into Q, so that the softmax may take the larger score for the larger weight.
// NaN and infinity times zero stay NaN. `count` units, a multiple of kLanes.
template <Source kSource>
inline void apply_sign(float sign, int64_t count, float* queries) {
  if (sign == 1.0f) return;
  for (int64_t i = 0; i < count; i += kLanes) {
    const F x = load(queries + i);
    if constexpr (kSource == Source::kPairs) {
      const F low = from_bits(bits(x) << 16) * broadcast(sign),
              high = from_bits(bits(x) & static_cast<int32_t>(0xffff0000)) * broadcast(sign);
      store(queries + i, from_bits((bits(high) & static_cast<int32_t>(0xffff0000)) | ((bits(low) >> 16) & 0xffff)));
    } else {
      store(queries + i, x * broadcast(sign));
    }
  }
}

}  // namespace
}  // namespace attnmux
