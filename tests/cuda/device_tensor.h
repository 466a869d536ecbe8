// SPDX-License-Identifier: Apache-2.0
// Tensors in device memory, for tests that are about the device itself.
#pragma once

#include <attnmux/attnmux.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "support/catalog.h"
#include "support/numbers.h"

namespace attnmux::test {

inline void must(cudaError_t code) {
  if (code != cudaSuccess) throw std::runtime_error(cudaGetErrorString(code));
}

class DeviceTensor {
 public:
  DeviceTensor(Dtype dtype, std::vector<int64_t> shape) : dtype_(dtype), shape_(std::move(shape)) {
    count_ = 1;
    for (const int64_t extent : shape_) count_ *= extent;
    must(cudaMalloc(&data_, bytes() + 1));
    must(cudaMemset(data_, 0xFF, bytes() + 1));
  }
  ~DeviceTensor() { cudaFree(data_); }
  DeviceTensor(const DeviceTensor&) = delete;
  DeviceTensor& operator=(const DeviceTensor&) = delete;

  size_t bytes() const { return static_cast<size_t>(count_) * size_of(dtype_); }
  void* data() const { return data_; }
  int64_t count() const { return count_; }
  void normal(uint64_t seed) {
    Random random(seed);
    std::vector<std::byte> host(bytes());
    for (int64_t i = 0; i < count_; ++i)
      store(dtype_, host.data() + static_cast<size_t>(i) * size_of(dtype_), random.normal());
    must(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice));
  }
  void integers(const std::vector<int32_t>& values) {
    must(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice));
  }
  std::vector<std::byte> host() const {
    std::vector<std::byte> all(bytes());
    must(cudaDeviceSynchronize());
    must(cudaMemcpy(all.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return all;
  }
  void poison() { must(cudaMemset(data_, 0xFF, bytes())); }
  MutableTensorView view() const {
    return MutableTensorView(data_, dtype_, std::span<const int64_t>(shape_), Device::cuda());
  }

 private:
  Dtype dtype_;
  std::vector<int64_t> shape_;
  int64_t count_ = 0;
  void* data_ = nullptr;
};

/// CUDA kernels that run here, each under one backend.
inline std::vector<Target> cuda_kernels() {
  std::vector<Target> all;
  for (const Target& t : kernels()) {
    if (t.on_cuda) all.push_back(t);
  }
  return all;
}

/// Skips, saying why, where there is no GPU.
class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto cuda = describe(ATTNMUX_DESCRIBE_MACHINE).at("devices").at("cuda");
    if (const std::string reason = cuda.at("reason"); !reason.empty()) GTEST_SKIP() << reason;
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    ASSERT_FALSE(cuda_kernels().empty());
  }
  void TearDown() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  ExecContext exec() const { return {.stream = Stream(stream_)}; }
  cudaStream_t stream_ = nullptr;
};

/// q, k, v and out of one problem, for a kernel.
struct Problem4 {
  Problem4(Dtype dtype, int64_t b, int64_t sq, int64_t skv, int64_t h, int64_t d)
      : q(dtype, {b, sq, h, d}), k(dtype, {b, skv, h, d}), v(dtype, {b, skv, h, d}), out(dtype, {b, sq, h, d}) {
    q.normal(1);
    k.normal(2);
    v.normal(3);
  }
  Status run(const Target& t, const ExecContext& exec, AttentionOptions o = {}) const {
    o.backend = t.backend;
    o.kernel = t.kernel;
    return try_attention(q.view(), k.view(), v.view(), out.view(), o, exec);
  }
  DeviceTensor q, k, v, out;
};

}  // namespace attnmux::test
