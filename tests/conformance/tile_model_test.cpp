// SPDX-License-Identifier: Apache-2.0
#include "conformance/tile_model.h"

#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "kernels/cpu/flash/decode_layout.h"
#include "support/catalog.h"

#if defined(__x86_64__)

namespace attnmux::test {
namespace {

constexpr const char* kModel = "model_amx";

int32_t available(Reason* reason) {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512bf16")) return 1;
  if (reason != nullptr) std::snprintf(reason->text, sizeof(reason->text), "the model needs AVX-512 BF16");
  return 0;
}

size_t workspace_bytes(const Problem* p, int32_t num_threads) {
  return static_cast<size_t>(workspace_of(*p, kBlockingAmx, num_threads));
}

// Before main(), since the suites take their kernels from the table.
const Status registered = [] {
  Kernel kernel{};
  kernel.struct_size = sizeof(kernel);
  kernel.device_type = ATTNMUX_CPU;
  kernel.name = kModel;
  kernel.features = (uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1;
  kernel.dtypes = 1u << ATTNMUX_BF16;
  kernel.accuracy[ATTNMUX_BF16] = ATTNMUX_16BIT;
  kernel.available = available;
  kernel.workspace_bytes = workspace_bytes;
  kernel.run = run_flash_on_tile_model;
  attnmux_backend_desc backend{};
  backend.struct_size = sizeof(backend);
  backend.num_kernels = 1;
  backend.name = "model.amx";
  backend.promise = "cpu_flash_amx on tiles that are arrays";
  backend.kernels = &kernel;
  Status status;
  attnmux_register_backend(&backend, status.c_error());
  return status;
}();

TEST(TileModel, IsAmongTheKernelsOfThisRun) {
  ASSERT_TRUE(registered) << registered.message();
  Reason reason{};
  if (available(&reason) == 0) GTEST_SKIP() << reason.text;
  const auto on_cpu = [](const Target& t) { return !t.on_cuda; };
  if (std::none_of(kernels().begin(), kernels().end(), on_cpu))
    GTEST_SKIP() << "ATTNMUX_TEST_DEVICES leaves out the cpu";
  EXPECT_TRUE(std::any_of(kernels().begin(), kernels().end(), [](const Target& t) { return t.kernel == kModel; }));
}

}  // namespace
}  // namespace attnmux::test

#endif
