// SPDX-License-Identifier: Apache-2.0
// The parts of the command line tool that a run of it shows only in passing: conversions, numbers, text, counts.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "attnmux/backend_table.h"
#include "attnmux/errors.h"
#include "attnmux/numbers.h"
#include "attnmux/numerics.h"
#include "attnmux/problem_spec.h"
#include "attnmux/table.h"
#include "attnmux/tensors.h"

namespace attnmux::cli {
namespace {

constexpr uint32_t kPatterns16 = 1 << 16;

// The nearest of all numbers of a 16-bit format, by looking at the two around; even on a tie.
template <typename ToFloat>
uint16_t nearest(double value, ToFloat to_float, uint16_t infinity) {
  uint16_t low = 0;
  while (low < infinity && to_float(static_cast<uint16_t>(low + 1)) <= value) ++low;
  const auto high = static_cast<uint16_t>(low + 1);
  const double below = value - to_float(low);
  // Beyond the largest number, rounding goes on as if the exponent did.
  const double step =
      high == infinity ? to_float(low) - to_float(static_cast<uint16_t>(low - 1)) : to_float(high) - to_float(low);
  if (below * 2 == step) return low % 2 == 0 ? low : high;
  return below * 2 < step ? low : high;
}

TEST(Conversions, EveryFp16AndBf16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < kPatterns16; ++bits) {
    const auto b = static_cast<uint16_t>(bits);
    if (std::isnan(fp16_to_float(b))) {
      EXPECT_TRUE(std::isnan(fp16_to_float(float_to_fp16(fp16_to_float(b)))));
    } else {
      EXPECT_EQ(float_to_fp16(fp16_to_float(b)), b);
    }
    if (std::isnan(bf16_to_float(b))) {
      EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(bf16_to_float(b)))));
    } else {
      EXPECT_EQ(float_to_bf16(bf16_to_float(b)), b);
    }
  }
}

TEST(Conversions, RoundToNearestEven) {
  for (const float value : {0.0F,     1.0F,     1.00048828125F, 1.0009766F,    1.0014648F, 3.14159265F, 0.1F,
                            6.1e-5F,  6.09e-5F, 5.9e-8F,        2.9802322e-8F, 2.99e-8F,   1e-9F,       65504.0F,
                            65519.9F, 65520.0F, 2047.5F,        2048.5F,       2049.5F,    1e-40F}) {
    EXPECT_EQ(float_to_fp16(value), nearest(value, fp16_to_float, 0x7C00)) << value;
    EXPECT_EQ(float_to_fp16(-value), nearest(value, fp16_to_float, 0x7C00) | 0x8000) << value;
    EXPECT_EQ(float_to_bf16(value), nearest(value, bf16_to_float, 0x7F80)) << value;
  }
  EXPECT_EQ(float_to_fp16(std::numeric_limits<float>::infinity()), 0x7C00);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7F80);
}

TEST(RandomTensors, AreCloseToNormalAndTheSameEveryTime) {
  HostTensor a(Dtype::kFp32, {100, 1000}), b(Dtype::kFp32, {100, 1000}), c(Dtype::kFp32, {100, 1000});
  a.fill_normal(1);
  b.fill_normal(1);
  c.fill_normal(2);
  EXPECT_EQ(a.to_doubles(), b.to_doubles());
  EXPECT_NE(a.to_doubles(), c.to_doubles());
  double sum = 0, squares = 0;
  for (const double x : a.to_doubles()) {
    sum += x;
    squares += x * x;
    EXPECT_LT(std::abs(x), 3.5);
  }
  EXPECT_NEAR(sum / 1e5, 0, 0.01);
  EXPECT_NEAR(squares / 1e5, 1, 0.01);
}

TEST(RandomTensors, PoisonIsNaNInEveryDtype) {
  for (const Dtype dtype : {Dtype::kFp32, Dtype::kFp16, Dtype::kBf16, Dtype::kFp64}) {
    HostTensor t(dtype, {3});
    t.poison();
    for (const double x : t.to_doubles()) EXPECT_TRUE(std::isnan(x));
  }
}

TEST(Numbers, ParseTheWholeText) {
  EXPECT_EQ(parse_integer("--n", "-1", -1), -1);
  EXPECT_EQ(parse_integer("--n", "9223372036854775807", 0), kMaxInt64);
  EXPECT_EQ(parse_real("--x", "-1e-3"), -1e-3);
  for (const char* text : {"", " 1", "1 ", "+1", "0x1", "1e3", "1.0", "9223372036854775808", "1,0"}) {
    EXPECT_THROW(parse_integer("--n", text, -10), UsageError) << text;
  }
  for (const char* text : {"", "nan", "inf", "-inf", "1,5", "1e999", "+1", "1 "}) {
    EXPECT_THROW(parse_real("--x", text), UsageError) << text;
  }
}

TEST(Numbers, ReadWell) {
  EXPECT_EQ(time_text(0.9e-3), "900 µs");
  EXPECT_EQ(time_text(0.99996e-3), "1.00 ms");
  EXPECT_EQ(time_text(12.34), "12.3 s");
  EXPECT_EQ(time_text(5e-9), "5 ns");
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(1.8e9), "1.80 GB");
  EXPECT_EQ(ratio_text(11.2), "11.2×");
  EXPECT_EQ(scientific(2.1e-4), "2.1e-04");
  EXPECT_EQ(counted(1, "core"), "1 core");
  EXPECT_EQ(counted(2, "core"), "2 cores");
}

TEST(Tables, CountSignsNotBytes) {
  EXPECT_EQ(display_width("1×2–3…"), 6U);
  EXPECT_EQ(wrapped("one two three", 7), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(wrapped("", 7), std::vector<std::string>{""});
}

TEST(BackendTable, WritesWhatKernelsShareOnce) {
  EXPECT_EQ(brief_list({"cpu_flash_avx512", "cpu_flash_avx2", "cpu_math"}), "cpu_flash_{avx512,avx2}, cpu_math");
  EXPECT_EQ(brief_list({"skeleton"}), "skeleton");
  EXPECT_EQ(brief_list({}), "");
}

TEST(Numerics, DifferencesSeeWhatComparisonsLose) {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> reference = {1, -infinity, 2};
  EXPECT_EQ(difference(reference, reference).max_abs, 0);
  EXPECT_TRUE(std::isnan(difference(std::vector<double>{1, -infinity, nan}, reference).max_abs));
  EXPECT_TRUE(std::isnan(difference(std::vector<double>{1, infinity, 2}, reference).max_abs));
  EXPECT_FALSE(Tolerance({1, 1}).admits({nan, nan}));
  EXPECT_DOUBLE_EQ(difference(std::vector<double>{1, -infinity, 2.5}, reference).max_abs, 0.5);
}

TEST(Numerics, UlpsFollowTheFormat) {
  EXPECT_EQ(ulp_at(Dtype::kFp32, 1.5), std::ldexp(1.0, -23));
  EXPECT_EQ(ulp_at(Dtype::kBf16, 4), std::ldexp(1.0, -5));
  EXPECT_EQ(ulp_at(Dtype::kFp16, 0), std::ldexp(1.0, -24));
  EXPECT_EQ(unit_roundoff(Dtype::kBf16), std::ldexp(1.0, -8));
}

// Against counting one by one, as design §2 words it.
TEST(AttendedPairs, MatchTheDefinition) {
  for (const int64_t queries : {1, 5, 9}) {
    for (const int64_t keys : {1, 5, 12}) {
      for (const Align align : {Align::kTopLeft, Align::kBottomRight}) {
        for (const int64_t left : {-1, 0, 3}) {
          for (const int64_t right : {-1, 0, 2}) {
            for (const bool causal : {false, true}) {
              ProblemSpec s;
              s.batch = 1;
              s.heads_q = s.heads_kv = 3;
              s.seqlen_q = queries;
              s.seqlen_kv = keys;
              s.window = WindowFlag{left, right, align};
              if (causal) s.causal = align;
              const auto length = static_cast<int32_t>(keys - keys / 3);
              s.key_lengths = std::vector<int32_t>{length};
              int64_t pairs = 0;
              for (int64_t i = 0; i < queries; ++i) {
                const int64_t diagonal = i + (align == Align::kBottomRight ? length - queries : 0);
                for (int64_t j = 0; j < length; ++j) {
                  pairs += (left < 0 || j >= diagonal - left) && (right < 0 || j <= diagonal + right) &&
                           (!causal || j <= diagonal);
                }
              }
              EXPECT_EQ(attended_pairs(s), static_cast<double>(3 * pairs)) << text(s);
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace attnmux::cli
