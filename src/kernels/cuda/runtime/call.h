// SPDX-License-Identifier: Apache-2.0
// What a call on CUDA tensors needs around its kernel: the tensors' device, pointers that belong to it, scratch in the
// order of the caller's stream, and errors in our own words. Nothing here waits for the device but read_lengths.
#pragma once

#include <vector>

#include "kernels/kernel.h"

namespace attnmux {

/// Makes the problem's device the calling thread's, and restores what was. A thread whose current device is already the
/// right one is left alone, so that a context of the caller's own stays in use.
class CudaDeviceScope {
 public:
  CudaDeviceScope() = default;
  ~CudaDeviceScope();
  CudaDeviceScope(const CudaDeviceScope&) = delete;
  CudaDeviceScope& operator=(const CudaDeviceScope&) = delete;
  attnmux_code enter(int32_t device, attnmux_error* error);

 private:
  int32_t before_ = -1;
};

/// Refuses tensors whose memory is the host's, or another device's.
attnmux_code check_cuda_pointers(const Problem& problem, attnmux_error* error);

/// Scratch of the current device, from the caller's allocator or from a memory pool of the library's own; given back,
/// in the order of the stream, at the end of the scope.
class CudaBlock {
 public:
  CudaBlock() = default;
  ~CudaBlock();
  CudaBlock(const CudaBlock&) = delete;
  CudaBlock& operator=(const CudaBlock&) = delete;
  attnmux_code allocate(size_t bytes, int32_t device, const attnmux_exec& exec, attnmux_error* error);
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  int32_t device_ = 0;
  const attnmux_exec* exec_ = nullptr;
};

/// ATTNMUX_CHECK=sync: waits for the stream and reads a rank-1 int32 tensor.
attnmux_code read_lengths(const Tensor& tensor, void* stream, std::vector<int32_t>& values, attnmux_error* error);

}  // namespace attnmux
