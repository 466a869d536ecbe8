// SPDX-License-Identifier: Apache-2.0
// Every instruction set that this machine has: the cap chooses the kernel, and that kernel is the one that runs.
#include <gtest/gtest.h>

#include <algorithm>

#include "support/conform.h"
#include "support/subprocess.h"

namespace attnmux::test {
namespace {

const std::vector<std::string> kIsas = {"baseline", "avx2", "avx512", "avx512_bf16", "amx"};

size_t rank(const std::string& isa) {
  return static_cast<size_t>(std::find(kIsas.begin(), kIsas.end(), isa) - kIsas.begin());
}
// "cpu_flash_avx512" -> "avx512"; "" for kernels without an instruction set in their name.
std::string isa_of(const std::string& kernel) {
  const std::string prefix = "cpu_flash_";
  return kernel.starts_with(prefix) ? kernel.substr(prefix.size()) : "";
}

std::string planned_kernel(Dtype dtype, Backend backend, std::string_view kernel = {}) {
  const MutableTensorView q(nullptr, dtype, {1, 128, 2, 64});
  Plan plan;
  const Status status = try_plan(plan, q, q, q, q, {.backend = backend, .kernel = kernel});
  return status ? std::string(plan.kernel()) : std::string(status.message());
}

ATTNMUX_PROBE(chosen_kernels) {
  return "bf16=" + planned_kernel(Dtype::kBf16, {}) + " fp32=" + planned_kernel(Dtype::kFp32, {}) +
         " flash=" + planned_kernel(Dtype::kBf16, "flash");
}
ATTNMUX_PROBE(ask_for_avx2) { return planned_kernel(Dtype::kFp32, "flash", "cpu_flash_avx2"); }
ATTNMUX_PROBE(machine_isa) { return describe(ATTNMUX_DESCRIBE_MACHINE).at("isa").get<std::string>(); }

// The kernel of the table that `dtype` gets under a cap: the highest one not above it. The table itself comes from a
// process without a cap, which is why it is read from the kernels' names and claims and not from `available`.
std::string expected_kernel(const std::string& cap, const std::string& detected, const char* dtype) {
  const size_t limit = std::min(rank(cap), rank(detected));
  std::string best;
  for (const auto& backend : describe(ATTNMUX_DESCRIBE_BACKENDS)) {
    if (backend.at("name") != "_native_flash") continue;
    for (const auto& kernel : backend.at("kernel_details")) {
      const std::string name = kernel.at("name"), isa = isa_of(name);
      const auto& dtypes = kernel.at("dtypes");
      const bool takes = std::find(dtypes.begin(), dtypes.end(), dtype) != dtypes.end();
      if (rank(isa) > limit || !takes) continue;
      if (best.empty() || rank(isa) > rank(isa_of(best))) best = name;
    }
  }
  return best;
}

TEST(Isa, TheCapChoosesTheKernel) {
  const std::string detected = run_probe("machine_isa").returned;
  ASSERT_LT(rank(detected), kIsas.size()) << detected;
  for (const std::string& cap : kIsas) {
    const Finished child = run_probe("chosen_kernels", {{"ATTNMUX_MAX_CPU_ISA", cap}});
    ASSERT_EQ(child.exit_code, 0) << child.output;
    const std::string bf16 = expected_kernel(cap, detected, "bf16"), fp32 = expected_kernel(cap, detected, "fp32");
    EXPECT_EQ(child.returned, "bf16=" + bf16 + " fp32=" + fp32 + " flash=" + bf16) << "under the cap " << cap;
    const Finished machine = run_probe("machine_isa", {{"ATTNMUX_MAX_CPU_ISA", cap}});
    EXPECT_EQ(machine.returned, kIsas[std::min(rank(cap), rank(detected))]);
  }
}

TEST(Isa, AKernelAboveTheCapIsRefusedWithTheReason) {
  if (rank(run_probe("machine_isa").returned) < rank("avx2")) GTEST_SKIP() << "the machine itself lacks AVX2";
  const Finished child = run_probe("ask_for_avx2", {{"ATTNMUX_MAX_CPU_ISA", "baseline"}});
  EXPECT_NE(child.returned.find("[attention]"), std::string::npos) << child.returned;
  EXPECT_NE(child.returned.find("cpu_flash_avx2"), std::string::npos) << child.returned;
  EXPECT_NE(child.returned.find("ATTNMUX_MAX_CPU_ISA=baseline"), std::string::npos) << child.returned;
}

// Everything that the machine has is among the kernels of this run: no instruction set goes untested.
TEST(Isa, EveryUsableInstructionSetIsTested) {
  const std::string usable = describe(ATTNMUX_DESCRIBE_MACHINE).at("isa");
  std::vector<std::string> tested;
  for (const Target& t : kernels()) tested.push_back(isa_of(t.kernel));
  for (size_t i = 0; i <= rank(usable); ++i) {
    EXPECT_NE(std::find(tested.begin(), tested.end(), kIsas[i]), tested.end()) << kIsas[i];
  }
}

// The default path of a machine with less: `native` alone, under every cap.
TEST(Isa, NativeIsRightUnderEveryCap) {
  const size_t detected = rank(run_probe("machine_isa").returned);
  for (size_t i = 0; i <= detected && i < kIsas.size(); ++i) {
    const Finished child =
        run_tests("*RandomCalls.NativeRunsEverything/*",
                  {{"ATTNMUX_MAX_CPU_ISA", kIsas[i]}, {"ATTNMUX_TEST_INTENSITY", scaled("smoke", "smoke", "ci")}});
    EXPECT_EQ(child.exit_code, 0) << kIsas[i] << "\n" << child.output;
    EXPECT_NE(child.output.find("[  PASSED  ] 8 tests"), std::string::npos) << child.output;
  }
}

}  // namespace
}  // namespace attnmux::test
