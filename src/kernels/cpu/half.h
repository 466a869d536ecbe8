// SPDX-License-Identifier: Apache-2.0
// IEEE binary16, bfloat16 and OCP E4M3, as plain C++ that every target runs. Round to nearest even; NaN stays NaN.
// Internal linkage for the reason that kernels/kernel.h gives.
#pragma once

#include <cstdint>

namespace attnmux {
namespace {

[[maybe_unused]] inline float bf16_to_fp32(uint16_t h) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(h) << 16);
}

[[maybe_unused]] inline uint16_t fp32_to_bf16(float f) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, f);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

[[maybe_unused]] inline float fp16_to_fp32(uint16_t h) {
  const uint32_t magnitude = h & 0x7fff;
  // With its bits moved into place a binary16 number is 2^112 times too small; so is a subnormal one. No branch: loops
  // over rows vectorise.
  const float scaled = __builtin_bit_cast(float, magnitude << 13) * 0x1p112f;
  const uint32_t special = magnitude >= 0x7c00 ? 0x7f800000 : 0;
  return __builtin_bit_cast(float,
                            __builtin_bit_cast(uint32_t, scaled) | special | static_cast<uint32_t>(h & 0x8000) << 16);
}

[[maybe_unused]] inline uint16_t fp32_to_fp16(float f) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, f);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to 2^16 or more: infinity
  if (magnitude < 0x38800000) {
    // Below 2^-14: adding 0.5 leaves the multiple of 2^-24, correctly rounded, in the low bits.
    const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (__builtin_bit_cast(uint32_t, shifted) - 0x3f000000));
  }
  const uint32_t rebiased = magnitude - (112u << 23);
  return static_cast<uint16_t>(sign | ((rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13));
}

[[maybe_unused]] inline float e4m3_to_fp32(uint8_t e) {
  const uint32_t magnitude = e & 0x7f, sign = static_cast<uint32_t>(e & 0x80) << 24;
  if (magnitude == 0x7f) return __builtin_bit_cast(float, sign | 0x7fc00000);
  // As for binary16: with its bits in place it is 2^120 times too small.
  const float scaled = __builtin_bit_cast(float, magnitude << 20) * 0x1p120f;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, scaled) | sign);
}

}  // namespace
}  // namespace attnmux
