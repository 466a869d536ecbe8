// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace attnmux {
namespace {

// What binary16 means, from its definition (IEEE 754-2008, table 3.5).
double fp16_value(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double sign = (h & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

TEST(Half, EveryFp16IsReadAsItsValueAndWrittenBack) {
  for (int bits = 0; bits < 65536; ++bits) {
    const auto h = static_cast<uint16_t>(bits);
    const float f = fp16_to_fp32(h);
    if (std::isnan(fp16_value(h))) {
      EXPECT_TRUE(std::isnan(f) && std::isnan(fp16_to_fp32(fp32_to_fp16(f)))) << bits;
    } else {
      EXPECT_EQ(static_cast<double>(f), fp16_value(h)) << bits;
      EXPECT_EQ(fp32_to_fp16(f), h) << bits;
    }
  }
}

// Between two neighbours: the nearer one, at the middle the even one.
TEST(Half, Fp32RoundsToNearestEven) {
  for (int bits = 0; bits < 0x7bff; ++bits) {
    const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits + 1);
    const float a = fp16_to_fp32(low), b = fp16_to_fp32(high), middle = (a + b) / 2;
    EXPECT_EQ(fp32_to_fp16(middle), (bits & 1) != 0 ? high : low) << bits;
    EXPECT_EQ(fp32_to_fp16(std::nextafter(middle, a)), low) << bits;
    EXPECT_EQ(fp32_to_fp16(std::nextafter(middle, b)), high) << bits;
  }
  EXPECT_EQ(fp32_to_fp16(65519.99f), 0x7bff);
  EXPECT_EQ(fp32_to_fp16(65520.f), 0x7c00);
  EXPECT_EQ(fp32_to_fp16(-1e30f), 0xfc00);
}

TEST(Half, Bf16RoundsToNearestEven) {
  for (int bits = 0; bits < 65536; ++bits) {
    const auto h = static_cast<uint16_t>(bits);
    const float f = bf16_to_fp32(h);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(bf16_to_fp32(fp32_to_bf16(f))));
      continue;
    }
    EXPECT_EQ(fp32_to_bf16(f), h) << bits;
    if ((bits & 0x7fff) >= 0x7f7f) continue;
    uint32_t word = static_cast<uint32_t>(bits) << 16 | 0x8000;  // the middle to the neighbour away from zero
    float middle = 0;
    std::memcpy(&middle, &word, sizeof(middle));
    EXPECT_EQ(fp32_to_bf16(middle), (bits & 1) != 0 ? bits + 1 : bits) << bits;
  }
}

}  // namespace
}  // namespace attnmux
