// SPDX-License-Identifier: Apache-2.0
// Which CUDA kernel a problem gets, and why none, on machines that are made up: no GPU is needed.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>
#include <kernels/cuda/runtime/device.h>

#include <cstdio>

namespace attnmux {
namespace {

CudaMachine machine_with(int32_t devices, int32_t major, int32_t minor) {
  CudaMachine machine{};
  machine.built = true;
  machine.driver_version = machine.runtime_version = 13000;
  machine.num_devices = devices;
  for (int32_t i = 0; i < devices; ++i) {
    CudaDevice& d = machine.device[i];
    std::snprintf(d.name, sizeof(d.name), "Imagined GPU");
    d.major = major;
    d.minor = minor;
    d.multiprocessors = 100;
    d.shared_bytes = 100 << 10;
  }
  return machine;
}

class CudaSelection : public ::testing::Test {
 protected:
  void SetUp() override {
#ifndef ATTNMUX_HAS_CUDA
    GTEST_SKIP() << "this build has no CUDA kernels";
#endif
    mock_cuda_machine(&machine_);
  }
  void TearDown() override { mock_cuda_machine(nullptr); }

  // The kernel that is planned, or the message.
  static std::string planned(Dtype dtype, int64_t dim, Backend backend = "native", int32_t device = 0,
                             AttentionOptions o = {}) {
    const MutableTensorView x(nullptr, dtype, {2, 64, 4, dim}, Device::cuda(device));
    o.backend = backend;
    Plan plan;
    const Status status = try_plan(plan, x, x, x, x, o, {.stream = Stream::per_thread()});
    return status ? std::string(plan.kernel()) : std::string(status.message());
  }
  static void expect_says(const std::string& message, const char* part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }

  CudaMachine machine_ = machine_with(2, 9, 0);
};

TEST_F(CudaSelection, TensorCoresWhereTheyTakeTheProblem) {
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kFp16}) {
    for (const int64_t dim : {8, 40, 64, 80, 128, 160, 256, 384, 512}) {
      for (const Backend backend : {Backend("native"), Backend("_native_flash")})
        EXPECT_EQ(planned(dtype, dim, backend), "cuda_flash_sm90");
      for (const Backend backend : {Backend("flash"), Backend("_native_efficient"), Backend("xformers")})
        EXPECT_EQ(planned(dtype, dim, backend), "cuda_flash_sm80");
      EXPECT_EQ(planned(dtype, dim, "_native_math"), "cuda_math");
    }
    EXPECT_EQ(planned(dtype, 384, "native", 0, {.softcap = 5}), "cuda_flash_sm80");
    for (const int64_t dim : {1, 12, 255}) EXPECT_EQ(planned(dtype, dim), "cuda_efficient");
    for (const int64_t dim : {257, 520}) EXPECT_EQ(planned(dtype, dim), "cuda_math");
  }
  for (const int64_t dim : {1, 20, 64, 128, 256}) {
    EXPECT_EQ(planned(Dtype::kFp32, dim), "cuda_efficient");
    EXPECT_EQ(planned(Dtype::kFp32, dim, "_native_efficient"), "cuda_efficient");
    EXPECT_EQ(planned(Dtype::kFp32, dim, "xformers"), "cuda_efficient");
  }
  EXPECT_EQ(planned(Dtype::kFp32, 257), "cuda_math");
  EXPECT_EQ(planned(Dtype::kFp64, 64), "cuda_math");
  // The exact products of fp32, without TF32, are cuda_math's.
  EXPECT_EQ(planned(Dtype::kFp32, 64, "_native_math"), "cuda_math");
  EXPECT_EQ(planned(Dtype::kBf16, 64, "native", 1), "cuda_flash_sm90");
  EXPECT_EQ(planned(Dtype::kBf16, 64, "native", 0, {.dropout = {.p = 0.5, .seed = 1}}), "cuda_flash_sm80");
  for (const auto& [major, minor] : {std::pair{8, 0}, {8, 9}, {10, 0}, {12, 0}}) {
    machine_ = machine_with(1, major, minor);
    for (const Backend backend : {Backend("native"), Backend("_native_flash")})
      EXPECT_EQ(planned(Dtype::kBf16, 64, backend), "cuda_flash_sm80") << major << "." << minor;
  }
}

TEST_F(CudaSelection, ADenseMaskOfEveryHeadIsReadAsItLies) {
  const auto masked = [](int64_t heads, Backend backend) {
    const MutableTensorView x(nullptr, Dtype::kBf16, {2, 64, 4, 64}, Device::cuda());
    const TensorView mask(nullptr, Dtype::kBool, {heads, 64, 64}, Device::cuda());
    Plan plan;
    const Status status =
        try_plan(plan, x, x, x, x, {.mask = Mask::dense(mask), .backend = backend}, {.stream = Stream::per_thread()});
    return status ? std::string(plan.kernel()) : std::string(status.message());
  };
  EXPECT_EQ(masked(1, "native"), "cuda_flash_sm90");
  EXPECT_EQ(masked(4, "native"), "cuda_flash_sm80");
  EXPECT_EQ(masked(4, "_flash_3"), "cuda_flash_sm90");
}

// Queries times the heads that share a kv head decide, not the queries alone.
TEST_F(CudaSelection, FewRowsPerKeyHeadGoToTheSmallerTiles) {
  const auto chosen = [](int64_t queries, int64_t heads_q, int64_t heads_kv, Backend backend, int64_t keys = 4096) {
    const MutableTensorView q(nullptr, Dtype::kBf16, {2, queries, heads_q, 64}, Device::cuda());
    const MutableTensorView k(nullptr, Dtype::kBf16, {2, keys, heads_kv, 64}, Device::cuda());
    Plan plan;
    const Status status = try_plan(plan, q, k, k, q, {.backend = backend}, {.stream = Stream::per_thread()});
    return status ? std::string(plan.kernel()) : std::string(status.message());
  };
  for (const Backend backend : {Backend("native"), Backend("_native_flash")}) {
    EXPECT_EQ(chosen(1, 8, 8, backend), "cuda_flash_sm80");
    EXPECT_EQ(chosen(15, 8, 8, backend), "cuda_flash_sm80");
    EXPECT_EQ(chosen(16, 8, 8, backend), "cuda_flash_sm90");
    EXPECT_EQ(chosen(1, 32, 8, backend, 4095), "cuda_flash_sm80");
    EXPECT_EQ(chosen(1, 32, 8, backend), "cuda_flash_sm90");
    EXPECT_EQ(chosen(4, 32, 8, backend, 512), "cuda_flash_sm90");
  }
  EXPECT_EQ(chosen(1, 8, 8, "_flash_3"), "cuda_flash_sm90");
}

TEST_F(CudaSelection, ARefusalNamesWhatItIsAndWhatRuns) {
  const std::string dim = planned(Dtype::kBf16, 20, "flash");
  expect_says(dim, "cuda_flash_sm80 head_dim is 20; it takes multiples of 8 up to 512");
  expect_says(dim, "\"_native_efficient\"");
  const std::string dtype = planned(Dtype::kFp32, 64, "flash");
  expect_says(dtype, "does not take fp32; it takes fp16, bf16");
  // Kernels of the other device say nothing.
  EXPECT_EQ(dtype.find("cpu_"), std::string::npos) << dtype;
  expect_says(planned(Dtype::kBf16, 64, "native", 2), "tensors are on cuda:2; this machine has 2 GPUs");
}

TEST_F(CudaSelection, AnOldGpuIsNamed) {
  machine_ = machine_with(1, 7, 5);
  const std::string message = planned(Dtype::kBf16, 64);
  expect_says(message, "needs an NVIDIA GPU of compute capability 8.0 or newer; Imagined GPU has 7.5");
}

TEST_F(CudaSelection, TheReasonWhyThereIsNoGpuIsPassedOn) {
  machine_ = CudaMachine{};
  std::snprintf(machine_.reason, sizeof(machine_.reason), "the driver is on holiday");
  expect_says(planned(Dtype::kBf16, 64), "the driver is on holiday");
}

TEST_F(CudaSelection, Flash3RunsOnHopperOnly) {
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kFp16}) {
    for (const int64_t dim : {8, 40, 64, 80, 128, 160, 192, 256, 264, 384, 512})
      EXPECT_EQ(planned(dtype, dim, "_flash_3"), "cuda_flash_sm90");
    EXPECT_EQ(planned(dtype, 64, "_flash_varlen_3"), "cuda_flash_sm90");
    for (const double scale : {0.0, -1.0, 1e300})
      EXPECT_EQ(planned(dtype, 64, "_flash_3", 0, {.scale = scale}), "cuda_flash_sm90");
  }
  for (const auto& [major, minor] : {std::pair{8, 0}, {8, 9}, {10, 0}, {12, 0}}) {
    machine_ = machine_with(1, major, minor);
    const std::string message = planned(Dtype::kBf16, 64, "_flash_3");
    expect_says(message, "needs a Hopper GPU (compute capability 9.0, sm90a); Imagined GPU has ");
    expect_says(message, "\"flash\" runs on others and on the CPU");
  }
  // Two GPUs, of which one is Hopper: the other's tensors are refused.
  machine_ = machine_with(2, 9, 0);
  machine_.device[1].major = 8;
  EXPECT_EQ(planned(Dtype::kBf16, 64, "_flash_3", 0), "cuda_flash_sm90");
  expect_says(planned(Dtype::kBf16, 64, "_flash_3", 1), "cuda:1, Imagined GPU, has 8.0");
}

TEST_F(CudaSelection, Flash3SaysWhatItDoesNotTake) {
  expect_says(planned(Dtype::kBf16, 60, "_flash_3"), "head_dim is 60; it takes multiples of 8 up to 512");
  expect_says(planned(Dtype::kBf16, 520, "_flash_3"), "head_dim is 520");
  expect_says(planned(Dtype::kBf16, 384, "_flash_3", 0, {.softcap = 5}),
              "takes a head_dim above 256 without a softcap; \"flash\" takes one");
  expect_says(planned(Dtype::kFp32, 64, "_flash_3"), "does not take fp32; it takes fp16, bf16");
  expect_says(planned(Dtype::kBf16, 64, "_flash_3", 0, {.dropout = {.p = 0.5, .seed = 1}}), "does not support dropout");
  const auto strided = [](int64_t row, int64_t head) {
    const MutableTensorView x(nullptr, Dtype::kBf16, {2, 64, 4, 64}, {64 * row, row, head, 1}, Device::cuda());
    const MutableTensorView out(nullptr, Dtype::kBf16, {2, 64, 4, 64}, Device::cuda());
    Plan plan;
    const Status status = try_plan(plan, x, x, x, out, {.backend = "_flash_3"}, {.stream = Stream::per_thread()});
    return status ? std::string(plan.kernel()) : std::string(status.message());
  };
  EXPECT_EQ(strided(256, 64), "cuda_flash_sm90");
  EXPECT_EQ(strided(512, 0), "cuda_flash_sm90");  // one head for all
  expect_says(strided(260, 64), "stride 1 of q is 260 elements; it takes positive multiples of 16 bytes");
  expect_says(strided(-256, 64), "stride 0 of q is -16384 elements");
  expect_says(strided(512, 68), "stride 2 of q is 68 elements");
}

TEST_F(CudaSelection, Flash3TakesE4m3WithoutHooks) {
  const auto planned_e4m3 = [](int64_t dim, AttentionOptions options) {
    const MutableTensorView x(nullptr, Dtype::kE4m3, {2, 64, 4, dim}, Device::cuda());
    const MutableTensorView out(nullptr, Dtype::kBf16, {2, 64, 4, dim}, Device::cuda());
    if (options.backend == Backend{}) options.backend = "_flash_3";
    Plan plan;
    const Status status = try_plan(plan, x, x, x, out, options, {.stream = Stream::per_thread()});
    return status ? std::string(plan.kernel()) : std::string(status.message());
  };
  const TensorView factors(nullptr, Dtype::kFp32, {2, 4}, Device::cuda());
  for (const int64_t dim : {16, 64, 112, 128, 256}) EXPECT_EQ(planned_e4m3(dim, {}), "cuda_flash_sm90");
  EXPECT_EQ(planned_e4m3(64, {.mask = Mask::causal(), .descale = {.q = factors, .k = factors, .v = factors}}),
            "cuda_flash_sm90");
  expect_says(planned_e4m3(72, {}), "head_dim is 72; of e4m3 it takes multiples of 16 up to 256");
  expect_says(planned_e4m3(384, {}), "head_dim is 384; of e4m3 it takes multiples of 16 up to 256");
  expect_says(planned_e4m3(64, {.softcap = 5}), "takes e4m3 without a softcap");
  expect_says(planned_e4m3(64, {.scale = 0}), "scale is 0; with e4m3 it takes finite scales above 0");
  for (const Backend other : {Backend("flash"), Backend("_native_math"), Backend("native")})
    expect_says(planned_e4m3(64, {.backend = other, .descale = {.k = factors}}), "does not take e4m3");
}

TEST_F(CudaSelection, TensorsOfOneCallAreOnOneDevice) {
  const MutableTensorView q(nullptr, Dtype::kBf16, {2, 64, 4, 64}, Device::cuda(0));
  const MutableTensorView k(nullptr, Dtype::kBf16, {2, 64, 4, 64}, Device::cuda(1));
  Plan plan;
  const Status status = try_plan(plan, q, k, q, q, {}, {.stream = Stream::per_thread()});
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  expect_says(std::string(status.message()), "k is on cuda:1, q on cuda:0");
}

TEST_F(CudaSelection, CpuCallsNeverAskForAGpu) {
  machine_ = CudaMachine{};
  std::snprintf(machine_.reason, sizeof(machine_.reason), "nobody should read this");
  std::vector<float> data(2 * 8 * 4 * 16), result(data.size());
  const TensorView x(data.data(), {2, 8, 4, 16});
  const MutableTensorView out(result.data(), {2, 8, 4, 16});
  const Status status = try_attention(x, x, x, out, {.backend = "_flash_3"});
  EXPECT_EQ(std::string(status.message()).find("nobody"), std::string::npos) << status.message();
  expect_says(std::string(status.message()), "tensors are on the cpu");
  expect_says(std::string(status.message()), "it is for Hopper GPUs (sm90a); \"flash\" runs on others and on the CPU");
  EXPECT_TRUE(try_attention(x, x, x, out).ok());
}

}  // namespace
}  // namespace attnmux
