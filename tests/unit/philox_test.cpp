// SPDX-License-Identifier: Apache-2.0
// Known answers of Philox4x32-10 (Random123, kat_vectors), for the kernels' generator and for the tests' own.
#include <gtest/gtest.h>

#include "kernels/kernel.h"
#include "support/reference.h"

namespace attnmux {
namespace {

struct KnownAnswer {
  uint32_t counter[4], key[2], expected[4];
};

constexpr KnownAnswer kKnownAnswers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

TEST(Philox, KnownAnswers) {
  for (const KnownAnswer& row : kKnownAnswers) {
    const Philox kernels =
        philox(row.key[0] | uint64_t{row.key[1]} << 32, row.counter[0], row.counter[1], row.counter[2], row.counter[3]);
    const test::PhiloxBlock tests =
        test::philox4x32_10({{row.counter[0], row.counter[1], row.counter[2], row.counter[3]}}, row.key[0], row.key[1]);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(kernels.word[i], row.expected[i]);
      EXPECT_EQ(tests.word[i], row.expected[i]);
    }
  }
}

// The integer compare of the kernels keeps exactly what u >= p keeps, also at the thresholds themselves.
TEST(Philox, ThresholdIsExact) {
  for (const double p : {0.0, 1e-12, 0.1, 0.25, 0.5, 1.0 / 3, 0.999999, 1 - 0x1p-24, 3 * 0x1p-24, 3.5 * 0x1p-24}) {
    const uint32_t threshold = dropout_threshold(p);
    for (const int64_t near : {-2, -1, 0, 1, 2}) {
      const int64_t word = static_cast<int64_t>(threshold) + near;
      if (word < 0 || word >= 1 << 24) continue;
      EXPECT_EQ(static_cast<double>(word) * 0x1p-24 >= p, word >= threshold) << p << " at " << word;
    }
  }
}

}  // namespace
}  // namespace attnmux
