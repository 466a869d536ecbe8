// SPDX-License-Identifier: Apache-2.0
// Trouble on a real GPU: memory that runs out, a fault of the device; and where workspaces come from.
#include <algorithm>

#include "cuda/device_tensor.h"
#include "support/subprocess.h"

namespace attnmux::test {
namespace {

using CudaFaults = OnGpu;
using CudaWorkspace = OnGpu;

// A problem for which some kernel wants a workspace, and that kernel.
struct NeedsWorkspace {
  NeedsWorkspace() : x(Dtype::kBf16, 1, 8, 4096, 4, 64) {
    for (const Target& t : cuda_kernels()) {
      AttentionOptions o{.backend = t.backend, .kernel = t.kernel};
      Plan plan;
      if (!t.takes(Dtype::kBf16) ||
          !try_plan(plan, x.q.view(), x.k.view(), x.v.view(), x.out.view(), o, {.stream = Stream::per_thread()}) ||
          plan.workspace_bytes() < bytes) {
        continue;
      }
      target = t;
      bytes = plan.workspace_bytes();
    }
  }
  Problem4 x;
  Target target;
  size_t bytes = 1;
};

struct Recorder {
  struct Call {
    int32_t device;
    void* stream;
    void* pointer;
    size_t bytes;
  };
  void* allocate(int32_t device, CUstream_st* stream, size_t bytes) {
    void* pointer = nullptr;
    if (!empty && cudaMallocAsync(&pointer, bytes, stream) != cudaSuccess) pointer = nullptr;
    taken.push_back({device, stream, pointer, bytes});
    return pointer;
  }
  void deallocate(int32_t device, CUstream_st* stream, void* pointer, size_t bytes) {
    given_back.push_back({device, stream, pointer, bytes});
    cudaFreeAsync(pointer, stream);
  }
  bool empty = false;
  std::vector<Call> taken, given_back;
};

TEST_F(CudaWorkspace, ComesFromTheCallersAllocator) {
  const NeedsWorkspace n;
  ASSERT_FALSE(n.target.kernel.empty()) << "no kernel wants a workspace for this problem";
  ASSERT_TRUE(n.x.run(n.target, exec()).ok());
  const auto expected = n.x.out.host();
  Recorder recorder;
  ExecContext with = exec();
  with.stream_allocator = StreamAllocator::from(recorder);
  const Status status = n.x.run(n.target, with);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(n.x.out.host(), expected);
  ASSERT_EQ(recorder.taken.size(), 1u);
  ASSERT_EQ(recorder.given_back.size(), 1u);
  const Recorder::Call &taken = recorder.taken[0], &back = recorder.given_back[0];
  EXPECT_EQ(taken.device, 0);
  EXPECT_EQ(taken.stream, stream_);
  EXPECT_EQ(taken.bytes, n.bytes);
  EXPECT_EQ(back.pointer, taken.pointer);
  EXPECT_EQ(back.bytes, taken.bytes);
  EXPECT_EQ(back.stream, stream_);

  recorder.empty = true;
  const Status none = n.x.run(n.target, with);
  EXPECT_EQ(none.code(), Code::kOutOfMemory) << none.message();
  EXPECT_NE(none.message().find("exec.stream_allocate has no " + std::to_string(n.bytes) + " bytes"),
            std::string_view::npos)
      << none.message();
  EXPECT_EQ(recorder.given_back.size(), 1u) << "gave back what it never had";
}

// Waiting for a stream makes CUDA's default pool give its memory back, and the next call pays for it.
TEST_F(CudaWorkspace, IsKeptBetweenCallsUntilReleased) {
  const NeedsWorkspace n;
  ASSERT_FALSE(n.target.kernel.empty());
  const auto free_bytes = [] {
    size_t available = 0, total = 0;
    must(cudaDeviceSynchronize());
    must(cudaMemGetInfo(&available, &total));
    return available;
  };
  ASSERT_TRUE(n.x.run(n.target, exec()).ok());
  must(cudaDeviceSynchronize());  // what is in use is not given back
  release_workspace();
  const size_t before = free_bytes();
  ASSERT_TRUE(n.x.run(n.target, exec()).ok());
  const size_t held = free_bytes();
  EXPECT_LT(held, before);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(n.x.run(n.target, exec()).ok());
    EXPECT_EQ(free_bytes(), held);
  }
  release_workspace();
  EXPECT_EQ(free_bytes(), before);
}

// The error says so, and once there is memory again the same call succeeds.
TEST_F(CudaFaults, MemoryThatRunsOut) {
  // V is copied where lengths hide a part of it, in cuda_cudnn; or whatever another kernel wants that large.
  const DeviceTensor q(Dtype::kBf16, {1, 16, 64, 256}), kv(Dtype::kBf16, {1, 16384, 64, 256});
  const DeviceTensor out(Dtype::kBf16, {1, 16, 64, 256});
  DeviceTensor lengths(Dtype::kInt32, {1});
  lengths.integers({16000});
  const auto options_for = [&](const Target& t) {
    return AttentionOptions{.mask = Mask::key_lengths(lengths.view()), .backend = t.backend, .kernel = t.kernel};
  };
  const Target* target = nullptr;
  size_t wanted = 0;
  const auto all = cuda_kernels();
  for (const Target& t : all) {
    Plan plan;
    if (try_plan(plan, q.view(), kv.view(), kv.view(), out.view(), options_for(t), exec()) &&
        plan.workspace_bytes() > wanted) {
      target = &t;
      wanted = plan.workspace_bytes();
    }
  }
  if (wanted < size_t{64} << 20) GTEST_SKIP() << "no kernel here wants a large workspace";
  release_workspace();
  std::vector<void*> eaten;
  size_t available = 0, total = 0;
  for (size_t piece = size_t{8} << 30; piece >= size_t{16} << 20; piece /= 2) {
    for (void* p = nullptr; cudaMemGetInfo(&available, &total) == cudaSuccess && available > piece + (wanted / 2) &&
                            cudaMalloc(&p, piece) == cudaSuccess;) {
      eaten.push_back(p);
    }
    cudaGetLastError();
  }
  const auto call = [&] {
    return try_attention(q.view(), kv.view(), kv.view(), out.view(), options_for(*target), exec());
  };
  const Status status = call();
  for (void* p : eaten) cudaFree(p);
  EXPECT_EQ(status.code(), Code::kOutOfMemory) << status.message();
  for (const char* part : {"the GPU is out of memory", "does not fit on cuda:0", "exec.workspace"})
    EXPECT_NE(status.message().find(part), std::string_view::npos) << status.message();
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "a later call would find this error";
  const Status after = call();
  EXPECT_TRUE(after.ok()) << after.message();
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
}

// A view that leads far outside of its memory stands for any bug that makes a kernel fault.
ATTNMUX_PROBE(call_after_a_fault_of_the_device) {
  const Problem4 x(Dtype::kFp32, 1, 16, 4, 1, 64);
  const TensorView wild(x.k.data(), Dtype::kFp32, {1, 4, 1, 64}, {int64_t{1} << 42, int64_t{1} << 40, 64, 1},
                        Device::cuda());
  const Stream stream = Stream::per_thread();
  const Status first =
      try_attention(x.q.view(), wild, x.v.view(), x.out.view(), {.backend = "_native_math"}, {.stream = stream});
  if (!first.ok()) return "refused: " + std::string(first.message());
  cudaDeviceSynchronize();
  const Status next = x.run(kernel_named("cuda_math"), {.stream = stream});
  return std::string(next.message());
}

TEST_F(CudaFaults, AFaultOfTheDeviceIsTold) {
  const Finished finished = run_probe("call_after_a_fault_of_the_device");
  for (const char* part : {"[attention] the GPU met a fault before or while", "cudaErrorIllegalAddress",
                           "its context cannot be used any more"})
    EXPECT_NE(finished.returned.find(part), std::string::npos) << finished.returned << finished.output;
  // Another process's fault: this one goes on.
  const Problem4 x(Dtype::kFp32, 1, 16, 4, 1, 64);
  EXPECT_TRUE(x.run(kernel_named("cuda_math"), exec()).ok());
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
}

TEST_F(CudaFaults, ADestroyedStreamIsTold) {
  const Problem4 x(Dtype::kFp32, 1, 16, 4, 1, 64);
  // Never a stream: CUDA looks at its memory, so it must be readable.
  std::vector<std::byte> zeros(4096);
  auto* stream = reinterpret_cast<CUstream_st*>(zeros.data());
  const Status status = x.run(kernel_named("cuda_math"), {.stream = Stream(stream)});
  EXPECT_EQ(status.code(), Code::kDeviceError) << status.message();
  EXPECT_NE(status.message().find("exec.stream must be a live stream"), std::string_view::npos) << status.message();
}

}  // namespace
}  // namespace attnmux::test
