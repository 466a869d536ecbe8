// SPDX-License-Identifier: Apache-2.0
// cuda_cudnn as far as it needs neither GPU nor cuDNN: which cuDNN it takes, what it refuses, what a graph depends on.
#ifdef ATTNMUX_HAS_CUDNN
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>
#include <kernels/cuda/cudnn/inputs.h>
#include <kernels/cuda/cudnn/library.h>
#include <kernels/cuda/cudnn/shape.h>
#include <kernels/cuda/runtime/device.h>

#include <cstdio>
#include <functional>
#include <ranges>
#include <string>

#include "support/subprocess.h"

namespace attnmux {
namespace {

CudaMachine one_gpu(int32_t major, int32_t minor) {
  CudaMachine machine{};
  machine.built = true;
  machine.num_devices = 1;
  std::snprintf(machine.device[0].name, sizeof(machine.device[0].name), "Imagined GPU");
  machine.device[0].major = major;
  machine.device[0].minor = minor;
  return machine;
}

CudnnLibrary library_of(int64_t version) {
  CudnnLibrary library{};
  library.version = version;
  Reason reason{};
  cudnn_version_is_usable(version, &reason);
  std::snprintf(library.reason, sizeof(library.reason), "%s", reason.text);
  return library;
}

// Tensors without pointers never get as far as a graph here: what is wrong with them is found before.
std::string planned(const MutableTensorView& q, const MutableTensorView& out, const AttentionOptions& given = {}) {
  AttentionOptions o = given;
  o.backend = "_native_cudnn";
  Plan plan;
  const Status status = try_plan(plan, q, q, q, out, o, {.stream = Stream::per_thread()});
  return status ? "planned" : std::string(status.message());
}
MutableTensorView tensor(int64_t dim, Dtype dtype = Dtype::kBf16) {
  return MutableTensorView(nullptr, dtype, {2, 64, 4, dim}, Device::cuda());
}
std::string planned(int64_t dim, const AttentionOptions& o = {}) { return planned(tensor(dim), tensor(dim), o); }

void expect_says(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" is not in: " << message;
}

class Cudnn : public ::testing::Test {
 protected:
  void SetUp() override {
    mock_cuda_machine(&machine_);
    mock_cudnn_library(&library_);
  }
  void TearDown() override {
    mock_cuda_machine(nullptr);
    mock_cudnn_library(nullptr);
  }
  CudaMachine machine_ = one_gpu(9, 0);
  CudnnLibrary library_ = library_of(91901);
};

TEST_F(Cudnn, VersionsThatAreWrongOrUnknownAreRefusedWithTheReason) {
  for (const int64_t good : {91002, 91100, 91300, 91401, 91900, 91901, 92200}) {
    Reason reason{};
    EXPECT_EQ(cudnn_version_is_usable(good, &reason), 1) << good << ": " << reason.text;
  }
  const struct {
    int64_t version;
    const char *name, *why;
  } denied[] = {{8907, "cuDNN 8.9.", "-inf"},
                {90100, "cuDNN 9.1.0", "-inf"},
                {90999, "cuDNN 9.9.99", "-inf"},
                {91000, "cuDNN 9.10.0", "wrong results"},
                {91001, "cuDNN 9.10.1", "wrong results"},
                {91400, "cuDNN 9.14.0", "under a window"},
                {100000, "cuDNN 10.0.0", "interface"}};
  for (const auto& [version, name, why] : denied) {
    library_ = library_of(version);
    const std::string message = planned(64);
    expect_says(message, name);
    expect_says(message, why);
    expect_says(message, "ATTNMUX_CUDNN_PATH");
    expect_says(message, "\"_native_flash\" needs no cuDNN");
  }
}

TEST_F(Cudnn, AnOldGpuIsNamedBeforeCudnnIsLookedFor) {
  machine_ = one_gpu(7, 5);
  std::snprintf(library_.reason, sizeof(library_.reason), "nobody should ask");
  const std::string message = planned(64);
  expect_says(message, "needs an NVIDIA GPU of compute capability 8.0 or newer; Imagined GPU has 7.5");
  EXPECT_EQ(message.find("nobody"), std::string::npos) << message;
}

TEST_F(Cudnn, RefusalsNeedNoGraph) {
  expect_says(planned(60), "head_dim is 60; it takes multiples of 8 up to 256");
  expect_says(planned(264), "head_dim is 264");
  expect_says(planned(64, {.softcap = 3}), "does not support a softcap");
  for (const double scale : {0.0, -1.0, 1e-50, 1e50})
    expect_says(planned(64, {.scale = scale}), "it takes positive ones that fp32 can hold");
  const MutableTensorView one(nullptr, Dtype::kBf16, {2, 1, 4, 64}, Device::cuda());
  expect_says(planned(one, one), "there is one query, for which cuDNN gives other bits from run to run");
  const TensorView mask(nullptr, Dtype::kBool, {64}, Device::cuda()), bias(nullptr, Dtype::kFp32, {64}, Device::cuda());
  expect_says(planned(64, {.mask = Mask::dense(mask)}), "does not support a dense mask");
  expect_says(planned(64, {.bias = bias}), "does not support an additive bias");
  expect_says(planned(64, {.dropout = {.p = 0.5, .seed = 1}}), "does not support dropout");
  expect_says(planned(tensor(64, Dtype::kFp32), tensor(64, Dtype::kFp32)), "does not take fp32; it takes fp16, bf16");
  const auto strided = [](int64_t batch, int64_t row, int64_t head) {
    return MutableTensorView(nullptr, Dtype::kBf16, {2, 64, 4, 64}, {batch, row, head, 1}, Device::cuda());
  };
  expect_says(planned(strided(64 * 260, 260, 64), tensor(64)), "stride 1 of q is 260 elements");
  expect_says(planned(strided(64 * 256, 256, 0), tensor(64)), "stride 2 of q is 0 elements");
  expect_says(planned(strided(-64 * 256, 256, 64), tensor(64)), "stride 0 of q is -16384 elements");
  expect_says(planned(tensor(64), strided(64 * 260, 260, 64)), "stride 1 of out is 260 elements");
  auto* odd = reinterpret_cast<void*>(uintptr_t{0x1002});
  expect_says(planned(MutableTensorView(odd, Dtype::kBf16, {2, 64, 4, 64}, Device::cuda()), tensor(64)),
              "q.data is 0x1002, which is not a multiple of 16 bytes");
}

ATTNMUX_PROBE(plan_with_the_cudnn_of_the_environment) {
  const CudaMachine machine = one_gpu(9, 0);
  mock_cuda_machine(&machine);
  return planned(64);
}
std::string with_path(const char* path, const char* version = "90100") {
  return test::run_probe("plan_with_the_cudnn_of_the_environment",
                         {{"ATTNMUX_CUDNN_PATH", path}, {"FAKE_CUDNN_VERSION", version}})
      .returned;
}

TEST(CudnnPath, WhatItNamesIsTakenOrRefusedByName) {
  expect_says(with_path("/nowhere/libcudnn.so.9"),
              "ATTNMUX_CUDNN_PATH is \"/nowhere/libcudnn.so.9\", which gives no cuDNN: ");
  expect_says(with_path("/"), "ATTNMUX_CUDNN_PATH is \"/\", which gives no cuDNN: /libcudnn.so.9");
  expect_says(with_path(ATTNMUX_FAKE_CUDNN), "cuDNN 9.1.0 ");
  expect_says(with_path(ATTNMUX_FAKE_CUDNN, "91400"), "cuDNN 9.14.0 ");
  expect_says(with_path(ATTNMUX_BROKEN_CUDNN), "has no function cudnnBackendExecute");
}

// ---- What a graph depends on --------------------------------------------------------------------------------------

Problem problem() {
  Problem p{};
  p.struct_size = sizeof(p);
  p.dtype = ATTNMUX_BF16;
  p.device_type = ATTNMUX_CUDA;
  p.batch = 2;
  p.seqlen_q = 30;
  p.seqlen_kv = 70;
  p.num_heads_q = p.num_heads_kv = 3;
  p.head_dim = p.head_dim_v = 64;
  p.scale = 0.125;
  p.window_left = p.window_right = kUnlimited;
  const auto fill = [](Tensor& t, int32_t dtype, std::initializer_list<int64_t> shape) {
    t = Tensor{nullptr, dtype, ATTNMUX_CUDA, 0, static_cast<int32_t>(shape.size()), {}, {}};
    int64_t stride = 1, i = t.ndim;
    for (const int64_t extent : std::ranges::reverse_view(shape)) {
      t.shape[--i] = extent;
      t.strides[i] = stride;
      stride *= extent;
    }
  };
  fill(p.q, p.dtype, {2, 30, 3, 64});
  fill(p.k, p.dtype, {2, 70, 3, 64});
  fill(p.v, p.dtype, {2, 70, 3, 64});
  fill(p.out, p.dtype, {2, 30, 3, 64});
  return p;
}
CudnnShape shape_after(const std::function<void(Problem&)>& change) {
  Problem p = problem();
  change(p);
  return cudnn_shape(p);
}

TEST(CudnnShapes, WhatComesWithEachRunMakesNoDifference) {
  const CudnnShape plain = cudnn_shape(problem());
  const std::function<void(Problem&)> same[] = {
      [](Problem& p) { p.scale = 3; }, [](Problem& p) { p.q.data = reinterpret_cast<void*>(uintptr_t{4096}); },
      // A window as wide as everything, and a stride that is never stepped.
      [](Problem& p) { p.window_left = p.window_right = 1000, p.align = ATTNMUX_ALIGN_BOTTOM_RIGHT; }};
  for (const auto& change : same) {
    EXPECT_TRUE(shape_after(change) == plain);
    EXPECT_EQ(shape_after(change).hash(), plain.hash());
  }
  const auto one_batch = [](int64_t stride) {
    return shape_after([stride](Problem& p) { p.batch = p.q.shape[0] = 1, p.q.strides[0] = stride; });
  };
  EXPECT_TRUE(one_batch(7) == one_batch(1 << 20));
}

TEST(CudnnShapes, WhatIsBakedIntoAGraphMakesADifference) {
  const CudnnShape plain = cudnn_shape(problem());
  const std::function<void(Problem&)> other[] = {
      [](Problem& p) { p.dtype = ATTNMUX_FP16; },
      [](Problem& p) { p.device_id = 1; },
      [](Problem& p) { p.seqlen_kv = 71; },
      [](Problem& p) { p.q.strides[1] += 8; },
      [](Problem& p) { p.out.strides[0] += 8; },
      [](Problem& p) { p.window_right = 0; },
      [](Problem& p) { p.window_left = 5; },
      [](Problem& p) { p.key_lengths = {nullptr, ATTNMUX_INT32, ATTNMUX_CUDA, 0, 1, {2}, {1}}; },
      [](Problem& p) { p.lse = {nullptr, ATTNMUX_FP32, ATTNMUX_CUDA, 0, 3, {2, 3, 30}, {90, 30, 1}}; },
      [](Problem& p) { p.key_padding = {nullptr, ATTNMUX_BOOL, ATTNMUX_CUDA, 0, 2, {2, 70}, {70, 1}}; },
  };
  for (const auto& change : other) EXPECT_FALSE(shape_after(change) == plain);
  const auto causal = [](int32_t align) {
    return shape_after([align](Problem& p) { p.window_right = 0, p.align = align; });
  };
  EXPECT_FALSE(causal(ATTNMUX_ALIGN_TOP_LEFT) == causal(ATTNMUX_ALIGN_BOTTOM_RIGHT));
}

// cuDNN multiplies every V by its probability and adds -inf to scores: NaN behind a mask would survive both.
TEST(CudnnShapes, WhatAMaskHidesIsCopiedAway) {
  const CudnnShape plain = cudnn_shape(problem());
  EXPECT_EQ(plain.copies_k + plain.copies_v + plain.has_lengths + plain.has_padding, 0);
  const CudnnShape lengths = shape_after(
      [](Problem& p) { p.key_lengths = {nullptr, ATTNMUX_INT32, ATTNMUX_CUDA, 0, 1, {2}, {1}}, p.v.strides[1] += 64; });
  EXPECT_EQ(lengths.copies_k, 0);
  EXPECT_EQ(lengths.copies_v, 1);
  EXPECT_EQ(lengths.v[1], 3 * 64) << "the copy has strides of its own";
  const CudnnShape padding =
      shape_after([](Problem& p) { p.key_padding = {nullptr, ATTNMUX_BOOL, ATTNMUX_CUDA, 0, 2, {2, 70}, {70, 1}}; });
  EXPECT_EQ(padding.copies_k, 1);
  EXPECT_EQ(padding.copies_v, 1);
}

TEST(CudnnShapes, PartsOfTheWorkspaceDoNotOverlap) {
  const CudnnShape s = shape_after([](Problem& p) {
    p.key_lengths = {nullptr, ATTNMUX_INT32, ATTNMUX_CUDA, 0, 1, {2}, {1}};
    p.key_padding = {nullptr, ATTNMUX_BOOL, ATTNMUX_CUDA, 0, 2, {2, 70}, {70, 1}};
  });
  const CudnnWorkspace w = cudnn_workspace(s, 1000);
  EXPECT_GE(w.lengths_q, 1000u);
  EXPECT_GE(w.lengths_kv, w.lengths_q + 2 * sizeof(int32_t));
  EXPECT_GE(w.padding, w.lengths_kv + 2 * sizeof(int32_t));
  EXPECT_GE(w.k, w.padding + 2u * 72 * 2);
  EXPECT_GE(w.v, w.k + 2u * 70 * 3 * 64 * 2);
  EXPECT_GE(w.bytes, w.v + 2u * 70 * 3 * 64 * 2);
  for (const size_t offset : {w.lengths_q, w.lengths_kv, w.padding, w.k, w.v}) EXPECT_EQ(offset % kCudnnAlignment, 0u);
  EXPECT_EQ(cudnn_workspace(cudnn_shape(problem()), 0).bytes, 0u);
}

// Keys [first, last) of the original that are left.
std::pair<int64_t, int64_t> attended_keys(int64_t queries, int64_t keys, int64_t left, int64_t right, int32_t align,
                                          bool lengths = false) {
  Problem p = problem();
  p.seqlen_q = p.q.shape[1] = queries;
  p.seqlen_kv = p.k.shape[1] = p.v.shape[1] = keys;
  p.window_left = left;
  p.window_right = right;
  p.align = align;
  p.k.data = p.v.data = reinterpret_cast<void*>(uintptr_t{1} << 20);
  if (lengths) p.key_lengths = {nullptr, ATTNMUX_INT32, ATTNMUX_CUDA, 0, 1, {2}, {1}};
  const Problem part = attended_part(p);
  EXPECT_EQ(part.k.shape[1], part.seqlen_kv);
  EXPECT_EQ(part.v.shape[1], part.seqlen_kv);
  const auto moved = static_cast<char*>(part.k.data) - static_cast<char*>(p.k.data);
  EXPECT_EQ(static_cast<char*>(part.v.data) - static_cast<char*>(p.v.data), moved);
  const int64_t first = moved / (p.k.strides[1] * 2);
  return {first, first + part.seqlen_kv};
}

TEST(CudnnShapes, KeysThatNobodyCanSeeAreLeftOut) {
  constexpr int32_t kTop = ATTNMUX_ALIGN_TOP_LEFT, kBottom = ATTNMUX_ALIGN_BOTTOM_RIGHT;
  using Keys = std::pair<int64_t, int64_t>;
  EXPECT_EQ(attended_keys(30, 100, -1, -1, kTop), Keys(0, 100));
  EXPECT_EQ(attended_keys(30, 100, -1, 0, kTop), Keys(0, 30));
  EXPECT_EQ(attended_keys(30, 100, 5, 9, kTop), Keys(0, 39));
  EXPECT_EQ(attended_keys(30, 100, 5, -1, kTop), Keys(0, 100));
  EXPECT_EQ(attended_keys(30, 100, -1, 0, kBottom), Keys(0, 100));
  EXPECT_EQ(attended_keys(30, 100, 3, 4, kBottom), Keys(67, 100));
  EXPECT_EQ(attended_keys(30, 100, INT64_MAX, INT64_MAX, kBottom), Keys(0, 100));
  EXPECT_EQ(attended_keys(100, 30, 3, 4, kBottom), Keys(0, 30));
  EXPECT_EQ(attended_keys(100, 30, 3, 4, kTop), Keys(0, 30));
  // Lengths on the device move the bottom right corner, and only that one.
  EXPECT_EQ(attended_keys(30, 100, 3, 4, kBottom, true), Keys(0, 100));
  EXPECT_EQ(attended_keys(30, 100, -1, 0, kTop, true), Keys(0, 30));
}

TEST(CudnnEmptyRows, AreForeseenFromTheShapes) {
  const auto may_be_empty = [](const std::function<void(Problem&)>& change) {
    Problem p = problem();
    change(p);
    return may_have_empty_rows(p);
  };
  EXPECT_FALSE(may_be_empty([](Problem&) {}));
  EXPECT_FALSE(may_be_empty([](Problem& p) { p.window_right = 0; }));
  EXPECT_FALSE(may_be_empty([](Problem& p) { p.window_right = 0, p.align = ATTNMUX_ALIGN_BOTTOM_RIGHT; }));
  EXPECT_TRUE(may_be_empty([](Problem& p) {
    p.window_right = 0, p.align = ATTNMUX_ALIGN_BOTTOM_RIGHT, p.seqlen_q = 71;
  })) << "the first query sits before the first key";
  EXPECT_TRUE(may_be_empty([](Problem& p) { p.window_left = 3, p.seqlen_q = 75; }))
      << "the last query has left all keys behind";
  EXPECT_TRUE(may_be_empty([](Problem& p) { p.key_lengths = {nullptr, ATTNMUX_INT32, ATTNMUX_CUDA, 0, 1, {2}, {1}}; }))
      << "a length may be 0";
}

}  // namespace
}  // namespace attnmux
#endif
