// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runtime/call.h"

#include <cuda.h>
#include <cudaTypedefs.h>

#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/device.h"
#include "kernels/cuda/runtime/driver_function.h"
#include "kernels/cuda/runtime/pool.h"

namespace attnmux {

CudaDeviceScope::~CudaDeviceScope() {
  if (before_ >= 0) cudaSetDevice(before_);
}

attnmux_code CudaDeviceScope::enter(int32_t device, attnmux_error* error) {
  int current = -1;
  ATTNMUX_CUDA_TRY(cudaGetDevice(&current), "asking for the current device");
  if (current == device) return ATTNMUX_OK;
  ATTNMUX_CUDA_TRY(cudaSetDevice(device), "choosing the tensors' device");
  before_ = current;
  return ATTNMUX_OK;
}

namespace {

// Whose memory it is. One question to the driver: cudaPointerGetAttributes asks several, which every call would pay for
// every tensor.
attnmux_code look_up(const void* data, cudaMemoryType& type, int& device, attnmux_error* error) {
  static const auto ask = driver_function<PFN_cuPointerGetAttributes_v7000>("cuPointerGetAttributes", 7000);
  unsigned memory = 0, managed = 0;
  CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                 CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
  void* values[] = {&memory, &managed, &device};
  if (ask != nullptr && ask(3, names, values, reinterpret_cast<CUdeviceptr>(data)) == CUDA_SUCCESS) {
    type = managed != 0                     ? cudaMemoryTypeManaged
           : memory == CU_MEMORYTYPE_DEVICE ? cudaMemoryTypeDevice
           : memory == CU_MEMORYTYPE_HOST   ? cudaMemoryTypeHost
                                            : cudaMemoryTypeUnregistered;
    return ATTNMUX_OK;
  }
  cudaPointerAttributes attributes{};
  ATTNMUX_CUDA_TRY(cudaPointerGetAttributes(&attributes, data), "looking up the memory of a tensor");
  type = attributes.type;
  device = attributes.device;
  return ATTNMUX_OK;
}

}  // namespace

attnmux_code check_cuda_pointers(const Problem& p, attnmux_error* error) {
  const struct {
    const char* name;
    const Tensor& t;
  } tensors[] = {{"q", p.q},
                 {"k", p.k},
                 {"v", p.v},
                 {"out", p.out},
                 {"lse", p.lse},
                 {"mask.key_lengths", p.key_lengths},
                 {"mask.key_padding", p.key_padding},
                 {"mask.dense", p.dense_mask},
                 {"bias", p.bias},
                 {"varlen.cu_seqlens_q", p.cu_seqlens_q},
                 {"varlen.cu_seqlens_kv", p.cu_seqlens_kv}};
  const void* before = nullptr;  // k and v are often one tensor, or q, k and v are
  for (const auto& [name, t] : tensors) {
    if (!given(t) || t.data == nullptr || t.data == before) continue;
    before = t.data;
    cudaMemoryType type{};
    int device = p.device_id;
    if (const attnmux_code code = look_up(t.data, type, device, error); code != ATTNMUX_OK) return code;
    if (type == cudaMemoryTypeUnregistered) {
      if (cuda_machine().device[p.device_id].reads_host_memory) continue;
      return fail_with(error, ATTNMUX_INVALID_ARGUMENT,
                       "%s.data is not memory that CUDA knows (a host pointer?), but %s is on cuda:%d; copy it to the "
                       "device, or give it as a cpu tensor",
                       name, name, p.device_id);
    }
    if (type == cudaMemoryTypeDevice && device != p.device_id) {
      return fail_with(error, ATTNMUX_INVALID_ARGUMENT, "%s.data is memory of cuda:%d, but %s is said to be on cuda:%d",
                       name, device, name, p.device_id);
    }
  }
  return ATTNMUX_OK;
}

CudaBlock::~CudaBlock() {
  if (data_ == nullptr) return;
  if (exec_->stream_allocate != nullptr) {
    exec_->stream_deallocate(exec_->stream_user, device_, exec_->stream, data_, bytes_);
  } else if (cudaFreeAsync(data_, static_cast<cudaStream_t>(exec_->stream)) != cudaSuccess) {
    cudaGetLastError();
  }
}

attnmux_code CudaBlock::allocate(size_t bytes, int32_t device, const attnmux_exec& exec, attnmux_error* error) {
  exec_ = &exec;
  bytes_ = bytes;
  device_ = device;
  if (exec.stream_allocate == nullptr) return allocate_from_pool(device, bytes, exec.stream, &data_, error);
  data_ = exec.stream_allocate(exec.stream_user, device, exec.stream, bytes);
  if (data_ != nullptr) return ATTNMUX_OK;
  return fail_with(
      error, ATTNMUX_OUT_OF_MEMORY,
      "exec.stream_allocate has no %zu bytes for a workspace on cuda:%d; free some, or pass exec.workspace", bytes,
      device);
}

attnmux_code read_lengths(const Tensor& t, void* stream, std::vector<int32_t>& values, attnmux_error* error) {
  values.resize(static_cast<size_t>(t.shape[0]));
  const auto queue = static_cast<cudaStream_t>(stream);
  if (!values.empty()) {
    const int64_t stride = t.strides[0] * static_cast<int64_t>(sizeof(int32_t));
    // One by one where they are not in a row: the check is for debugging.
    const bool in_a_row = stride == static_cast<int64_t>(sizeof(int32_t));
    const size_t copies = in_a_row ? 1 : values.size(), bytes = (in_a_row ? values.size() : 1) * sizeof(int32_t);
    for (size_t i = 0; i < copies; ++i) {
      ATTNMUX_CUDA_TRY(
          cudaMemcpyAsync(values.data() + i, element<const int32_t>(t, static_cast<int64_t>(i) * t.strides[0]), bytes,
                          cudaMemcpyDeviceToHost, queue),
          "reading lengths back (ATTNMUX_CHECK=sync)");
    }
  }
  ATTNMUX_CUDA_TRY(cudaStreamSynchronize(queue), "waiting for lengths (ATTNMUX_CHECK=sync)");
  return ATTNMUX_OK;
}

}  // namespace attnmux
