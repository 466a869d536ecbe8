// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/isa/cpu_isa.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <limits>
#include <string>

#include "kernels/cpu/isa/flush_denormals.h"

namespace attnmux {
namespace {

// Puts the process-wide cap back.
class CpuIsaTest : public testing::Test {
 protected:
  ~CpuIsaTest() override { set_cpu_isa_cap(cap_); }

 private:
  CpuIsa cap_ = cpu_isa_cap();
};

TEST_F(CpuIsaTest, NamesGoBothWays) {
  for (const CpuIsaRow& row : kCpuIsas) {
    EXPECT_STREQ(cpu_isa_name(row.isa), row.name);
    EXPECT_EQ(cpu_isa_named(row.name), row.isa);
  }
  for (const char* wrong : {"", "AVX2", "avx", "avx512bf16", "avx512 ", "sse2"})
    EXPECT_EQ(cpu_isa_named(wrong), std::nullopt) << wrong;
}

TEST_F(CpuIsaTest, TheCapLowersWhatIsUsable) {
  set_cpu_isa_cap(CpuIsa::kAmx);
  EXPECT_EQ(usable_cpu_isa(), detected_cpu_isa());
  for (const CpuIsaRow& row : kCpuIsas) {
    set_cpu_isa_cap(row.isa);
    EXPECT_EQ(usable_cpu_isa(), row.isa < detected_cpu_isa() ? row.isa : detected_cpu_isa());
  }
}

TEST_F(CpuIsaTest, AvailabilityFollowsDetectionAndCap) {
  set_cpu_isa_cap(CpuIsa::kAmx);
  for (const CpuIsaRow& row : kCpuIsas) {
    Reason reason{};
    EXPECT_EQ(cpu_isa_available(row.isa, &reason), row.isa <= detected_cpu_isa() ? 1 : 0) << row.name;
    if (row.isa > detected_cpu_isa()) {
      EXPECT_NE(std::string(reason.text).find(std::string("needs ")), std::string::npos) << reason.text;
      EXPECT_EQ(cpu_isa_available(row.isa, nullptr), 0) << "a null reason is allowed";
    } else {
      EXPECT_STREQ(reason.text, "") << "nothing to explain";
    }
  }
}

TEST_F(CpuIsaTest, TheBaselineIsAlwaysThere) {
  set_cpu_isa_cap(CpuIsa::kBaseline);
  EXPECT_EQ(cpu_isa_available(CpuIsa::kBaseline, nullptr), 1);
}

TEST_F(CpuIsaTest, ACapIsNamedAsTheReason) {
  if (detected_cpu_isa() < CpuIsa::kAvx512) GTEST_SKIP() << "needs AVX-512 to be capped";
  set_cpu_isa_cap(CpuIsa::kAvx2);
  Reason reason{};
  EXPECT_EQ(cpu_isa_available(CpuIsa::kAvx512, &reason), 0);
  EXPECT_STREQ(reason.text, "capped by ATTNMUX_MAX_CPU_ISA=avx2");
  EXPECT_EQ(cpu_isa_available(CpuIsa::kAvx2, &reason), 1);
}

TEST_F(CpuIsaTest, WhatTheMachineLacksIsNamedEvenUnderACap) {
  if (detected_cpu_isa() == CpuIsa::kAmx) GTEST_SKIP() << "this machine lacks nothing";
  set_cpu_isa_cap(CpuIsa::kBaseline);
  Reason reason{};
  EXPECT_EQ(cpu_isa_available(CpuIsa::kAmx, &reason), 0);
  EXPECT_EQ(std::string(reason.text).find("capped"), std::string::npos) << reason.text;
}

#if defined(__linux__) && defined(__x86_64__)
TEST_F(CpuIsaTest, AgreesWithTheKernelOfTheSystem) {
  // Linux lists a feature only if it has also enabled its registers.
  std::FILE* file = std::fopen("/proc/cpuinfo", "r");
  if (file == nullptr) GTEST_SKIP() << "no /proc/cpuinfo";
  std::string text;
  for (int c; (c = std::fgetc(file)) != EOF;) text.push_back(static_cast<char>(c));
  std::fclose(file);
  const size_t begin = text.find("flags");
  if (begin == std::string::npos) GTEST_SKIP() << "no flags in /proc/cpuinfo";
  const std::string line = " " + text.substr(begin, text.find('\n', begin) - begin) + " ";
  const auto has = [&](const char* flag) { return line.find(std::string(" ") + flag + " ") != std::string::npos; };
  EXPECT_EQ(detected_cpu_isa() >= CpuIsa::kAvx2, has("avx2") && has("fma") && has("f16c") && has("bmi2"));
  EXPECT_EQ(detected_cpu_isa() >= CpuIsa::kAvx512,
            has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl") && has("avx512cd"));
  EXPECT_EQ(detected_cpu_isa() >= CpuIsa::kAvx512Bf16, has("avx512_bf16") && has("avx512_vnni"));
}
#endif

TEST(DescribeCpu, CachesAreThere) {
  for (const CpuCache& cache : describe_cpu().caches) {
    EXPECT_GE(cache.level, 1);
    EXPECT_GT(cache.bytes, 0);
    EXPECT_FALSE(cache.type.empty());
  }
#if defined(__x86_64__)
  EXPECT_FALSE(describe_cpu().brand.empty());
#endif
}

TEST(FlushDenormals, FlushesAndRestores) {
  volatile float smallest = std::numeric_limits<float>::denorm_min();
  volatile float normal = std::numeric_limits<float>::min();
  const auto is_kept = [&] {
    const volatile float half = normal * 0.5f;
    return smallest * 1.0f != 0.0f && half != 0.0f;
  };
  ASSERT_TRUE(is_kept());
  const DenormalMode outer = flush_denormals();
  EXPECT_FALSE(is_kept());
  const DenormalMode inner = flush_denormals();
  restore_denormals(inner);
  EXPECT_FALSE(is_kept()) << "the modes that were there come back, not the defaults";
  restore_denormals(outer);
  EXPECT_TRUE(is_kept());
}

}  // namespace
}  // namespace attnmux
