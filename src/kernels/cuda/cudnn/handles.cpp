// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/handles.h"

#include <array>
#include <atomic>

#include "kernels/cuda/cudnn/api.h"
#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/device.h"

namespace attnmux {

struct CudnnHandle::Held {
  cudnnHandle_t handle = nullptr;
  void* stream = nullptr;
  bool has_stream = false;
};

namespace {

// More calls than this at once on one device make and destroy handles.
constexpr size_t kCached = 16;
using Slots = std::array<std::atomic<void*>, kCached>;

std::array<Slots, kMaxCudaDevices>& cache() {
  static auto& all = *new std::array<Slots, kMaxCudaDevices>{};  // never destroyed: as cuDNN's own state, it lives on
  return all;
}

}  // namespace

CudnnHandle::~CudnnHandle() {
  if (held_ == nullptr) return;
  for (auto& slot : cache()[static_cast<size_t>(device_)]) {
    void* empty = nullptr;
    if (slot.compare_exchange_strong(empty, held_, std::memory_order_acq_rel)) return;
  }
  cudnnDestroy(held_->handle);
  delete held_;
}

attnmux_code CudnnHandle::take(int64_t device, attnmux_error* error) {
  device_ = device;
  for (auto& slot : cache()[static_cast<size_t>(device)]) {
    if (slot.load(std::memory_order_relaxed) == nullptr) continue;
    held_ = static_cast<Held*>(slot.exchange(nullptr, std::memory_order_acq_rel));
    if (held_ != nullptr) return ATTNMUX_OK;
  }
  cudnnHandle_t handle = nullptr;
  if (const cudnnStatus_t status = cudnnCreate(&handle); status != CUDNN_STATUS_SUCCESS)
    return cudnn_failed(error, status, "starting on this device");
  held_ = new Held{handle};
  return ATTNMUX_OK;
}

attnmux_code CudnnHandle::set_stream(void* stream, attnmux_error* error) {
  if (held_->has_stream && held_->stream == stream) return ATTNMUX_OK;
  held_->has_stream = false;
  if (const cudnnStatus_t status = cudnnSetStream(held_->handle, static_cast<cudaStream_t>(stream));
      status != CUDNN_STATUS_SUCCESS) {
    return cudnn_failed(error, status, "taking exec.stream");
  }
  held_->stream = stream;
  held_->has_stream = true;
  return ATTNMUX_OK;
}

cudnnContext* CudnnHandle::get() const { return held_->handle; }

attnmux_code cudnn_failed(attnmux_error* error, int status, const char* doing) {
  // A fault of the device, or memory that ran out, shows in CUDA first; cuDNN only says that CUDA failed.
  if (const cudaError_t cuda = cudaPeekAtLastError(); cuda != cudaSuccess) return cuda_failed(error, cuda, doing);
  const auto code = static_cast<cudnnStatus_t>(status);
  char text[256] = "";
  cudnnGetLastErrorString(text, sizeof(text));
  for (char& c : text) c = c == '\n' || c == '\r' ? ' ' : c;
  if (code == CUDNN_STATUS_ALLOC_FAILED || code == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED) {
    return fail_with(error, ATTNMUX_OUT_OF_MEMORY, "cuDNN is out of memory while %s (%s: %s); free some", doing,
                     cudnnGetErrorString(code), text);
  }
  const bool not_supported = code / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000;
  return fail_with(error, not_supported ? ATTNMUX_UNSUPPORTED : ATTNMUX_DEVICE_ERROR, "cuDNN failed while %s: %s (%s)",
                   doing, text, cudnnGetErrorString(code));
}

}  // namespace attnmux
