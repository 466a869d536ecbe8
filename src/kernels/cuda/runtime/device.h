// SPDX-License-Identifier: Apache-2.0
// Which NVIDIA GPUs this process sees, or why none. A build without CUDA kernels has these functions too
// (without_cuda.cpp), so that its callers need no conditions.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

inline constexpr int32_t kMaxCudaDevices = 32;

struct CudaDevice {
  char name[256];
  int32_t major, minor;  // compute capability
  int32_t multiprocessors;
  int32_t shared_bytes;  // most that one block can have
  int64_t memory_bytes, l2_bytes;
  bool reads_host_memory;  // ordinary host pointers are legal on the device
};

struct CudaMachine {
  bool built;              // does this build have CUDA kernels?
  int32_t driver_version;  // 13000 is CUDA 13.0; 0: there is no driver
  int32_t runtime_version;
  int32_t num_devices;
  CudaDevice device[kMaxCudaDevices];
  char reason[256];  // why no device can be used, and what to do; "" where one can
};

/// Asked once, by the first call that meets a CUDA tensor or describes the machine.
const CudaMachine& cuda_machine();

/// For tests of what needs no GPU: cuda_machine() answers this; null ends that.
void mock_cuda_machine(const CudaMachine* machine);

/// For a kernel's `available`: is there a GPU of at least this compute capability (80 is 8.0)?
int32_t cuda_available(int32_t capability, Reason* reason);
/// For a kernel's `check`: is the problem's device one?
int32_t cuda_device_is(const Problem& problem, int32_t capability, Reason* reason);

}  // namespace attnmux
