// SPDX-License-Identifier: Apache-2.0
// The instruction does what the model says that the conformance suite runs on where there is no AMX, bit for bit; and
// the model does what its definition says.
#include "unit/amx_tiles.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu/isa/cpu_isa.h"
#include "support/numbers.h"

#if defined(__x86_64__)

namespace attnmux::test {
namespace {

constexpr int kStride = 24;

struct Operands {
  std::vector<float> left, right, sum;
};

// Pairs of bf16 of every size, so that products differ by more than fp32 holds; subnormal numbers among them.
Operands make_operands(uint64_t seed, int exponents) {
  Random random(seed);
  Operands o{std::vector<float>(16 * kStride), std::vector<float>(16 * kStride), std::vector<float>(16 * kStride)};
  const auto number = [&](int bits) {
    const auto sign = static_cast<uint32_t>(random.between(0, 1)) << 15;
    const auto exponent = static_cast<uint32_t>(127 + random.between(-bits, bits));
    return sign | exponent << 7 | static_cast<uint32_t>(random.between(0, 127));
  };
  for (size_t i = 0; i < o.left.size(); ++i) {
    o.left[i] = std::bit_cast<float>(number(exponents) << 16 | number(exponents));
    o.right[i] = std::bit_cast<float>(number(exponents) << 16 | number(exponents));
    o.sum[i] = static_cast<float>(random.normal());
  }
  return o;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool has_model() { return detected_cpu_isa() >= CpuIsa::kAvx512Bf16; }

TEST(AmxTiles, TheInstructionIsTheModelBitForBit) {
  if (detected_cpu_isa() < CpuIsa::kAmx) GTEST_SKIP() << "the machine has no AMX, or does not permit it";
  for (const int exponents : {0, 4, 20, 60, 100}) {
    for (uint64_t seed = 1; seed <= 50; ++seed) {
      Operands o = make_operands(seed, exponents);
      std::vector<float> model = o.sum;
      multiply_on_amx(o.left.data(), o.right.data(), o.sum.data(), kStride, 3);
      multiply_on_amx_model(o.left.data(), o.right.data(), model.data(), kStride, 3);
      ASSERT_TRUE(same_bits(o.sum, model)) << "exponents up to " << exponents << ", seed " << seed;
    }
  }
}

double half(float pair, int which) {
  return std::bit_cast<float>(which == 0 ? std::bit_cast<uint32_t>(pair) << 16
                                         : std::bit_cast<uint32_t>(pair) & 0xffff0000u);
}

TEST(AmxTiles, TheModelMultipliesRowsByColumns) {
  if (!has_model()) GTEST_SKIP() << "the model needs AVX-512 BF16";
  Operands o = make_operands(7, 3);
  const std::vector<float> before = o.sum;
  multiply_on_amx_model(o.left.data(), o.right.data(), o.sum.data(), kStride, 1);
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < kStride; ++n) {
      const int at = m * kStride + n;
      if (n >= 16) {
        EXPECT_EQ(o.sum[at], before[at]) << "outside of the tile";
        continue;
      }
      double expected = before[at], magnitude = std::fabs(expected);
      for (int k = 0; k < 32; ++k) {
        const double term = half(o.left[m * kStride + k / 2], k % 2) * half(o.right[k / 2 * kStride + n], k % 2);
        expected += term;
        magnitude += std::fabs(term);
      }
      // Each of at most 18 roundings is off by half an ulp of a partial sum.
      EXPECT_NEAR(o.sum[at], expected, 18 * 0x1p-24 * magnitude) << m << ", " << n;
    }
  }
}

}  // namespace
}  // namespace attnmux::test

#endif
