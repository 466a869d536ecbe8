// SPDX-License-Identifier: Apache-2.0
// The runtime of a build without CUDA kernels. A plugin may bring CUDA kernels to such a build: they get their
// workspace from the caller.
#include "kernels/cuda/runtime/call.h"
#include "kernels/cuda/runtime/device.h"
#include "kernels/cuda/runtime/pool.h"

namespace attnmux {

const CudaMachine& cuda_machine() {
  static const CudaMachine machine{false, 0, 0, 0, {}, "this build has no CUDA kernels"};
  return machine;
}

void mock_cuda_machine(const CudaMachine* /*machine*/) {}

int32_t cuda_available(int32_t /*capability*/, Reason* reason) {
  refuse(reason, "%s", cuda_machine().reason);
  return 0;
}
int32_t cuda_device_is(const Problem& /*problem*/, int32_t capability, Reason* reason) {
  return cuda_available(capability, reason);
}

CudaDeviceScope::~CudaDeviceScope() { before_ = -1; }
attnmux_code CudaDeviceScope::enter(int32_t /*device*/, attnmux_error* /*error*/) { return ATTNMUX_OK; }

attnmux_code check_cuda_pointers(const Problem& /*problem*/, attnmux_error* /*error*/) { return ATTNMUX_OK; }

CudaBlock::~CudaBlock() {
  if (data_ != nullptr) exec_->stream_deallocate(exec_->stream_user, device_, exec_->stream, data_, bytes_);
}
attnmux_code CudaBlock::allocate(size_t bytes, int32_t device, const attnmux_exec& exec, attnmux_error* error) {
  if (exec.stream_allocate != nullptr) {
    data_ = exec.stream_allocate(exec.stream_user, device, exec.stream, bytes);
    bytes_ = bytes;
    device_ = device;
    exec_ = &exec;
    return data_ != nullptr
               ? ATTNMUX_OK
               : fail_with(error, ATTNMUX_OUT_OF_MEMORY,
                           "exec.stream_allocate has no %zu bytes for a workspace on cuda:%d", bytes, device);
  }
  return fail_with(
      error, ATTNMUX_UNSUPPORTED,
      "a workspace of %zu bytes in device memory is needed, and this build has no CUDA; pass exec.workspace", bytes);
}

void trim_pools() {}

attnmux_code read_lengths(const Tensor& /*tensor*/, void* /*stream*/, std::vector<int32_t>& /*values*/,
                          attnmux_error* error) {
  return fail_with(error, ATTNMUX_UNSUPPORTED,
                   "ATTNMUX_CHECK is sync, and this build has no CUDA to read lengths back with; unset it");
}

}  // namespace attnmux
