// SPDX-License-Identifier: Apache-2.0
// Handles of cuDNN. A handle serves one call at a time and costs milliseconds and device memory to make, so they wait
// in a small cache per device; taking one needs no lock.
#pragma once

#include "kernels/kernel.h"

struct cudnnContext;

namespace attnmux {

class CudnnHandle {
 public:
  CudnnHandle() = default;
  ~CudnnHandle();
  CudnnHandle(const CudnnHandle&) = delete;
  CudnnHandle& operator=(const CudnnHandle&) = delete;
  /// Of the current device, which is `device`.
  attnmux_code take(int64_t device, attnmux_error* error);
  attnmux_code set_stream(void* stream, attnmux_error* error);
  cudnnContext* get() const;

 private:
  struct Held;
  Held* held_ = nullptr;
  int64_t device_ = 0;
};

/// A status of cuDNN (cudnnStatus_t) as one of our errors: what failed while `doing` what, in cuDNN's words.
attnmux_code cudnn_failed(attnmux_error* error, int status, const char* doing);

}  // namespace attnmux
