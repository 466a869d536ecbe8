// SPDX-License-Identifier: Apache-2.0
// What is special about calls on CUDA tensors: streams, graphs, pointers, lengths that the host never sees, devices.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "cuda/device_tensor.h"
#include "support/subprocess.h"

namespace attnmux::test {
namespace {

// The tests of this program bring tensors in device memory.
[[maybe_unused]] const bool has_cuda_tensors = cuda_tensors_can_be_mirrored = true;

class CudaCalls : public OnGpu {};

TEST(CudaMachine, WithoutAGpuTheCallSaysWhatIsMissing) {
  const std::string missing = describe(ATTNMUX_DESCRIBE_MACHINE).at("devices").at("cuda").at("reason");
  if (missing.empty()) GTEST_SKIP() << "there is a GPU";
  const MutableTensorView q(nullptr, Dtype::kBf16, {1, 16, 2, 64}, Device::cuda());
  for (const Backend backend : {Backend("native"), Backend("flash"), Backend("_native_math")}) {
    Plan plan;
    const Status status = try_plan(plan, q, q, q, q, {.backend = backend}, {.stream = Stream::per_thread()});
    EXPECT_EQ(status.code(), Code::kUnavailable) << status.message();
    EXPECT_NE(status.message().find(missing), std::string_view::npos) << status.message();
  }
}

TEST_F(CudaCalls, TheStreamIsNeeded) {
  const Problem4 x(Dtype::kBf16, 1, 32, 32, 2, 64);
  const Status status = x.run(cuda_kernels()[0], {});
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("exec.stream is absent"), std::string_view::npos) << status.message();
}

TEST_F(CudaCalls, EveryKindOfStreamGivesTheSameBits) {
  const Problem4 x(Dtype::kFp16, 2, 100, 130, 2, 64);
  for (const Target& t : cuda_kernels()) {
    ASSERT_TRUE(x.run(t, exec()).ok());
    const auto expected = x.out.host();
    for (const Stream stream : {Stream::per_thread(), Stream(static_cast<CUstream_st*>(nullptr))}) {
      cudaMemset(x.out.data(), 0xFF, x.out.bytes());
      cudaDeviceSynchronize();
      const Status status = x.run(t, {.stream = stream});
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(x.out.host(), expected) << t.text();
    }
  }
}

TEST_F(CudaCalls, HostPointersAreRefused) {
  const Problem4 x(Dtype::kBf16, 1, 32, 32, 2, 64);
  cudaDeviceProp properties{};
  must(cudaGetDeviceProperties(&properties, 0));
  if (properties.pageableMemoryAccess != 0) GTEST_SKIP() << "this GPU reads host memory";
  std::vector<std::byte> host(x.k.bytes());
  const MutableTensorView k(host.data(), Dtype::kBf16, {1, 32, 2, 64}, Device::cuda());
  for (const Target& t : cuda_kernels()) {
    const Status status =
        try_attention(x.q.view(), k, x.v.view(), x.out.view(), {.backend = t.backend, .kernel = t.kernel}, exec());
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << t.text();
    EXPECT_NE(status.message().find("k.data is not memory that CUDA knows"), std::string_view::npos)
        << status.message();
  }
}

TEST_F(CudaCalls, ADeviceThatIsNotThereIsNamed) {
  const MutableTensorView q(nullptr, Dtype::kBf16, {1, 16, 2, 64}, Device::cuda(97));
  Plan plan;
  const Status status = try_plan(plan, q, q, q, q, {}, exec());
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("cuda:97"), std::string_view::npos) << status.message();
}

// Wrong lengths in device memory lead nowhere: each value counts as the nearest legal one.
TEST_F(CudaCalls, LengthsAreClampedOnTheDevice) {
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kFp32}) {
    const Problem4 x(dtype, 3, 40, 70, 2, 64);
    DeviceTensor wild(Dtype::kInt32, {3}), legal(Dtype::kInt32, {3});
    wild.integers({2'000'000'000, -7, 71});
    legal.integers({70, 0, 70});
    for (const Target& t : cuda_kernels()) {
      if (!t.takes(dtype)) continue;
      ASSERT_TRUE(x.run(t, exec(), {.mask = Mask::key_lengths(legal.view())}).ok());
      const auto expected = x.out.host();
      cudaMemset(x.out.data(), 0xFF, x.out.bytes());
      cudaDeviceSynchronize();
      const Status status = x.run(t, exec(), {.mask = Mask::key_lengths(wild.view())});
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(x.out.host(), expected) << t.text();
    }
  }
}

TEST_F(CudaCalls, WildCuSeqlensStayInsideTheTensors) {
  const Problem4 x(Dtype::kBf16, 1, 90, 120, 2, 64);
  const auto packed = [](const DeviceTensor& t, int64_t tokens) {
    return MutableTensorView(t.data(), Dtype::kBf16, {tokens, 2, 64}, Device::cuda());
  };
  DeviceTensor q(Dtype::kInt32, {4}), kv(Dtype::kInt32, {4});
  q.integers({-50, 1'000'000, 5, 90});
  kv.integers({100, 3, -1, 1 << 30});
  for (const Target& t : cuda_kernels()) {
    if ((t.features & ATTNMUX_VARLEN) == 0) continue;
    AttentionOptions o{.backend = t.backend, .kernel = t.kernel};
    o.varlen.cu_seqlens_q = q.view();
    o.varlen.cu_seqlens_kv = kv.view();
    const Status status =
        try_attention(packed(x.q, 90), packed(x.k, 120), packed(x.v, 120), packed(x.out, 90), o, exec());
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess) << t.text();
  }
}

ATTNMUX_PROBE(call_with_wrong_device_lengths) {
  const Problem4 x(Dtype::kBf16, 2, 16, 32, 2, 64);
  DeviceTensor lengths(Dtype::kInt32, {2});
  lengths.integers({32, 33});
  cudaDeviceSynchronize();
  const Status status =
      x.run(cuda_kernels()[0], {.stream = Stream::per_thread()}, {.mask = Mask::key_lengths(lengths.view())});
  return std::string(status.message());
}

TEST_F(CudaCalls, CheckSyncReadsLengthsBack) {
  const Finished off = run_probe("call_with_wrong_device_lengths");
  EXPECT_EQ(off.returned, "") << off.output;
  const Finished on = run_probe("call_with_wrong_device_lengths", {{"ATTNMUX_CHECK", "sync"}});
  EXPECT_NE(on.returned.find("mask.key_lengths[1] is 33; accepted is 0 to 32"), std::string::npos) << on.returned;
}

// Captured once, replayed with other values in the same memory, other lengths among them.
TEST_F(CudaCalls, EveryKernelIsCapturedAndReplayed) {
  for (const Target& t : cuda_kernels()) {
    Problem4 x(Dtype::kBf16, 2, 70, 200, 3, 64);
    DeviceTensor lengths(Dtype::kInt32, {2});
    lengths.integers({200, 200});
    const AttentionOptions o{.mask = Mask::key_lengths(lengths.view()) & Mask::causal(Align::kBottomRight)};
    ASSERT_TRUE(x.run(t, exec(), o).ok());  // loads the kernel
    must(cudaStreamSynchronize(stream_));
    cudaGraph_t graph = nullptr;
    must(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    const Status status = x.run(t, exec(), o);
    ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess) << t.text();
    ASSERT_TRUE(status.ok()) << status.message();
    cudaGraphExec_t instance = nullptr;
    must(cudaGraphInstantiate(&instance, graph, 0));
    for (const auto& values : {std::vector<int32_t>{200, 200}, {70, 131}, {1, 0}}) {
      lengths.integers(values);
      x.q.normal(static_cast<uint64_t>(values[0]));
      x.out.poison();
      must(cudaDeviceSynchronize());  // values and poison do not travel through stream_
      must(cudaGraphLaunch(instance, stream_));
      must(cudaStreamSynchronize(stream_));
      const auto replayed = x.out.host();
      x.out.poison();
      must(cudaDeviceSynchronize());
      ASSERT_TRUE(x.run(t, exec(), o).ok());
      EXPECT_EQ(x.out.host(), replayed) << t.text();
    }
    cudaGraphExecDestroy(instance);
    cudaGraphDestroy(graph);
  }
}

// A race shows as bits that change.
TEST_F(CudaCalls, ManyRepeatsGiveTheSameBits) {
  for (const Target& t : cuda_kernels()) {
    const Problem4 x(Dtype::kBf16, 2, 257, 391, 3, 128);
    const AttentionOptions o{.mask = Mask::causal(Align::kBottomRight)};
    std::vector<std::byte> first;
    const int repeats = scaled(20, 1000, 5000);
    for (int i = 0; i < repeats; ++i) {
      ASSERT_TRUE(x.run(t, exec(), o).ok());
      const auto bits = x.out.host();
      if (first.empty()) first = bits;
      ASSERT_EQ(bits, first) << t.text() << " repeat " << i;
    }
  }
}

// Elements further apart than 32 bits can count.
TEST_F(CudaCalls, OffsetsHave64Bits) {
  constexpr int64_t kRows = 33, kStride = int64_t{1} << 27, kDim = 64;  // 2^32 elements of 2 bytes
  void* memory = nullptr;
  if (cudaMalloc(&memory, static_cast<size_t>(kRows * kStride) * 2) != cudaSuccess) {
    cudaGetLastError();
    GTEST_SKIP() << "9 GB of device memory are not free";
  }
  const Problem4 near(Dtype::kBf16, 1, 20, kRows, 1, kDim);
  must(cudaMemcpy2D(memory, kStride * 2, near.k.data(), kDim * 2, kDim * 2, kRows, cudaMemcpyDeviceToDevice));
  const TensorView far(memory, Dtype::kBf16, {1, kRows, 1, kDim}, {kRows * kStride, kStride, kDim, 1}, Device::cuda());
  for (const Target& t : cuda_kernels()) {
    ASSERT_TRUE(near.run(t, exec()).ok());
    const auto expected = near.out.host();
    cudaMemset(near.out.data(), 0xFF, near.out.bytes());
    cudaDeviceSynchronize();
    const Status status = try_attention(near.q.view(), far, near.v.view(), near.out.view(),
                                        {.backend = t.backend, .kernel = t.kernel}, exec());
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(near.out.host(), expected) << t.text();
  }
  cudaFree(memory);
}

TEST_F(CudaCalls, TheCallersDeviceStays) {
  int devices = 0;
  must(cudaGetDeviceCount(&devices));
  must(cudaSetDevice(devices - 1));
  const Status status = [&] {
    must(cudaSetDevice(0));
    const Problem4 x(Dtype::kBf16, 1, 32, 32, 2, 64);
    must(cudaDeviceSynchronize());
    must(cudaSetDevice(devices - 1));
    const Status inner = x.run(cuda_kernels()[0], {.stream = Stream::per_thread()});
    must(cudaSetDevice(0));
    must(cudaDeviceSynchronize());
    must(cudaSetDevice(devices - 1));
    return inner;
  }();
  EXPECT_TRUE(status.ok()) << status.message();
  int current = -1;
  must(cudaGetDevice(&current));
  EXPECT_EQ(current, devices - 1);
  must(cudaSetDevice(0));
}

// Choosing, checking and launching, without the device's work.
TEST_F(CudaCalls, TheHostNeedsLittleTime) {
  for (const Target& t : cuda_kernels()) {
    const Problem4 x(Dtype::kBf16, 1, 16, 16, 1, 64);
    std::vector<double> microseconds;
    for (int i = 0; i < 300; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      ASSERT_TRUE(x.run(t, exec()).ok());
      const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
      microseconds.push_back(took.count());
      must(cudaStreamSynchronize(stream_));
    }
    std::nth_element(microseconds.begin(), microseconds.begin() + 150, microseconds.end());
    std::printf("host time per call of %s: %.2f us\n", t.kernel.c_str(), microseconds[150]);
    // The aim is 5; twice that tells a mistake from a slow machine. cuDNN takes 8.5 in its own launch, and a workspace.
    EXPECT_LT(microseconds[150], t.kernel == "cuda_cudnn" ? 2 * (5 + 8.5 + 2) : 10) << t.text();
  }
}

}  // namespace
}  // namespace attnmux::test
