// SPDX-License-Identifier: Apache-2.0
// The tables hold together: every feature bit has a row, every kernel lies where its name says, every name has a
// promise.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

#include "dispatch/backends.h"
#include "dispatch/dtypes.h"
#include "dispatch/features.h"
#include "dispatch/registry.h"

namespace attnmux {
namespace {

TEST(Features, EveryBitHasARowWithNameAndWording) {
  std::set<std::string_view> names;
  for (int bit = 0; bit < ATTNMUX_FEATURE_COUNT; ++bit) {
    EXPECT_EQ(kFeatures[bit].bit, uint64_t{1} << bit);
    EXPECT_FALSE(kFeatures[bit].name.empty());
    EXPECT_FALSE(kFeatures[bit].wording.empty());
    names.insert(kFeatures[bit].name);
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(ATTNMUX_FEATURE_COUNT));
  EXPECT_EQ(kSettable & kDerivedFeatures, 0u);
}

TEST(Dtypes, SizesMatchDlpackBits) {
  for (int32_t dtype = 1; dtype < ATTNMUX_DTYPE_COUNT; ++dtype) {
    EXPECT_EQ(dtype_row(dtype).size * 8, dtype_row(dtype).dlpack_bits) << dtype_name(dtype);
  }
  EXPECT_EQ(dtype_list(1u << ATTNMUX_FP32 | 1u << ATTNMUX_BF16), "fp32, bf16");
  EXPECT_FALSE(is_dtype(0));
  EXPECT_FALSE(is_dtype(ATTNMUX_DTYPE_COUNT));
}

// cpu_flash_avx512 is src/kernels/cpu/flash/avx512.cpp; cpu_math is src/kernels/cpu/math/math.cpp.
std::filesystem::path source_of(const std::string& kernel) {
  const size_t device = kernel.find('_'), variant = kernel.find('_', device + 1);
  const std::string algorithm =
      kernel.substr(device + 1, variant == std::string::npos ? std::string::npos : variant - device - 1);
  const std::string file = variant == std::string::npos ? algorithm : kernel.substr(variant + 1);
  return std::filesystem::path(ATTNMUX_SOURCE_DIR) / "src" / "kernels" / kernel.substr(0, device) / algorithm /
         (file + ".cpp");
}

TEST(Backends, AKernelLiesWhereItsNameSays) {
  for (const BackendRow& row : kBackends) {
    for (const Kernel* kernel : row.list()) {
      EXPECT_TRUE(std::filesystem::exists(source_of(kernel->name)))
          << kernel->name << ": no " << source_of(kernel->name);
      EXPECT_TRUE(std::string(kernel->name).starts_with(kernel->device_type == ATTNMUX_CPU ? "cpu_" : "cuda_"))
          << kernel->name;
    }
  }
}

TEST(Backends, ARowHasKernelsOrSaysWhyNot) {
  for (const BackendRow& row : kBackends) {
    EXPECT_NE(std::string(row.promise), "") << row.name;
    EXPECT_EQ(row.num_kernels() == 0, !std::string(row.missing).empty()) << row.name;
    std::set<const Kernel*> distinct(row.list().begin(), row.list().end());
    EXPECT_EQ(distinct.size(), row.num_kernels()) << row.name << " names a kernel twice";
  }
}

TEST(Backends, KernelsStateAnAccuracyClassForEachDtype) {
  for (const BackendRow& row : kBackends) {
    for (const Kernel* kernel : row.list()) {
      EXPECT_EQ(kernel->struct_size, sizeof(Kernel)) << kernel->name;
      for (int32_t dtype = 0; dtype < ATTNMUX_DTYPE_COUNT; ++dtype) {
        EXPECT_EQ((kernel->dtypes >> dtype & 1) != 0, kernel->accuracy[dtype] != ATTNMUX_ACCURACY_NONE)
            << kernel->name << " " << dtype_name(dtype);
      }
    }
  }
}

TEST(Registry, TheClosestNamesAreOffered) {
  uint16_t id = 0;
  attnmux_error error{};
  EXPECT_EQ(find_backend_or_fail("flash_varlenn", id, &error), ATTNMUX_UNKNOWN_BACKEND);
  EXPECT_NE(std::string(error.message).find("\"flash_varlen\""), std::string::npos) << error.message;
  EXPECT_EQ(find_backend_or_fail("flash_varlen", id, &error), ATTNMUX_OK);
  EXPECT_EQ(std::string(backend_row(id)->name), "flash_varlen");
}

}  // namespace
}  // namespace attnmux
