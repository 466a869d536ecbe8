// SPDX-License-Identifier: Apache-2.0
// cuda_cudnn beyond the conformance suite: many threads, more graphs than are kept, a plan's one shape, other cuDNNs.
#ifdef ATTNMUX_HAS_CUDNN
#include <cstdlib>
#include <thread>
#include <tuple>

#include "cuda/device_tensor.h"
#include "support/subprocess.h"

namespace attnmux::test {
namespace {

class CudaCudnn : public OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (IsSkipped()) return;
    for (const Target& t : cuda_kernels()) {
      if (t.kernel == "cuda_cudnn") target_ = t;
    }
    Status why;
    attnmux_backend_available(Backend("_native_cudnn").id(), why.c_error());
    if (target_.kernel.empty()) GTEST_SKIP() << why.message();
  }
  Target target_;
};

TEST_F(CudaCudnn, ManyThreadsGiveTheBitsOfOne) {
  constexpr int kThreads = 8, kRounds = 20;
  std::vector<std::unique_ptr<Problem4>> problems;
  std::vector<std::vector<std::byte>> expected;
  for (int i = 0; i < kThreads; ++i) {  // pairs of threads share a shape
    problems.push_back(std::make_unique<Problem4>(Dtype::kBf16, 1, 64 + 32 * (i / 2), 200, 2, 64));
    ASSERT_TRUE(problems.back()->run(target_, exec()).ok());
    expected.push_back(problems.back()->out.host());
  }
  std::vector<std::string> wrong(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const Problem4& x = *problems[static_cast<size_t>(i)];
      for (int round = 0; round < kRounds && wrong[static_cast<size_t>(i)].empty(); ++round) {
        if (cudaMemsetAsync(x.out.data(), 0xFF, x.out.bytes(), cudaStreamPerThread) != cudaSuccess) continue;
        const Status status = x.run(target_, {.stream = Stream::per_thread()});
        std::vector<std::byte> got(x.out.bytes());
        cudaMemcpyAsync(got.data(), x.out.data(), got.size(), cudaMemcpyDeviceToHost, cudaStreamPerThread);
        cudaStreamSynchronize(cudaStreamPerThread);
        if (!status) wrong[static_cast<size_t>(i)] = status.message();
        if (status && got != expected[static_cast<size_t>(i)]) wrong[static_cast<size_t>(i)] = "other bits";
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (const std::string& text : wrong) EXPECT_EQ(text, "");
}

// First use of a shape by many threads at once: built once or waited for, never half.
TEST_F(CudaCudnn, ThreadsMayMeetAShapeForTheFirstTimeTogether) {
  const Problem4 x(Dtype::kBf16, 1, 77, 333, 2, 64);
  std::vector<std::string> wrong(6);
  std::vector<std::thread> threads;
  for (std::string& text : wrong) {
    threads.emplace_back([&] {
      AttentionOptions o{.backend = target_.backend};
      Plan plan;
      const Status status =
          try_plan(plan, x.q.view(), x.k.view(), x.v.view(), x.out.view(), o, {.stream = Stream::per_thread()});
      if (!status) text = status.message();
    });
  }
  for (std::thread& t : threads) t.join();
  for (const std::string& text : wrong) EXPECT_EQ(text, "");
}

TEST_F(CudaCudnn, APlanServesItsShapeAndLayoutAlone) {
  const Problem4 x(Dtype::kBf16, 2, 64, 128, 2, 64);
  const AttentionOptions o{.backend = target_.backend};
  Plan plan;
  ASSERT_TRUE(try_plan(plan, x.q.view(), x.k.view(), x.v.view(), x.out.view(), o, exec()).ok());
  EXPECT_TRUE(plan.try_run(x.q.view(), x.k.view(), x.v.view(), x.out.view(), o, exec()).ok());
  const auto refused = [&](const TensorView& k, const char* part) {
    const Status status = plan.try_run(x.q.view(), k, k, x.out.view(), o, exec());
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.message();
    EXPECT_NE(status.message().find(part), std::string_view::npos) << status.message();
  };
  const TensorView shorter(x.k.data(), Dtype::kBf16, {2, 100, 2, 64}, {128 * 128, 128, 64, 1}, Device::cuda());
  refused(shorter, "seqlen_kv is 100; accepted is (this kernel serves one shape) 128");
  const TensorView other_strides(x.k.data(), Dtype::kBf16, {2, 128, 2, 64}, {128 * 128, 64, 128 * 64, 1},
                                 Device::cuda());
  refused(other_strides, "the strides of k differ from the planned");
}

// For one query cuDNN's bits vary from run to run, which is refused; for a few they must not.
TEST_F(CudaCudnn, FewQueriesGiveTheSameBits) {
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16}) {
    for (const auto& [batch, queries, keys, heads, dim] :
         {std::tuple{1, 2, 1500, 1, 32}, {1, 3, 512, 4, 64}, {8, 2, 8192, 8, 64}, {2, 16, 5000, 4, 128}}) {
      const Problem4 x(dtype, batch, queries, keys, heads, dim);
      std::vector<std::byte> first;
      for (int i = 0, n = scaled(20, 200, 2000); i < n; ++i) {
        ASSERT_TRUE(x.run(target_, exec()).ok());
        const auto bits = x.out.host();
        if (first.empty()) first = bits;
        ASSERT_TRUE(bits == first) << queries << " queries, " << keys << " keys, head_dim " << dim << ", repeat " << i;
      }
    }
  }
  const Status status = Problem4(Dtype::kBf16, 1, 1, 512, 4, 64).run(target_, exec());
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("there is one query"), std::string_view::npos) << status.message();
}

ATTNMUX_PROBE(which_cudnn) {
  Status why;
  attnmux_backend_available(Backend("_native_cudnn").id(), why.c_error());
  return std::string(why.message());
}

TEST_F(CudaCudnn, AnOldCudnnIsRefusedByItsVersion) {
  const char* carried = std::getenv("ATTNMUX_TEST_FAKE_CUDNN");
  const std::string fake = carried == nullptr ? ATTNMUX_FAKE_CUDNN : carried;
  const Finished finished = run_probe("which_cudnn", {{"ATTNMUX_CUDNN_PATH", fake}});
  EXPECT_NE(finished.returned.find("cuDNN 9.1.0 masks keys with a large negative number"), std::string::npos)
      << finished.returned << finished.output;
  const Finished nowhere = run_probe("which_cudnn", {{"ATTNMUX_CUDNN_PATH", "/nowhere"}});
  EXPECT_NE(nowhere.returned.find("ATTNMUX_CUDNN_PATH is \"/nowhere\", which gives no cuDNN"), std::string::npos)
      << nowhere.returned;
}

}  // namespace
}  // namespace attnmux::test
#endif
