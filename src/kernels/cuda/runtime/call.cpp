// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runtime/call.h"

#include <cuda.h>
#include <cudaTypedefs.h>

#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/device.h"
#include "kernels/cuda/runtime/driver_function.h"

namespace attnmux {

attnmux_code cuda_failed(attnmux_error* error, cudaError_t code, const char* doing) {
  cudaGetLastError();
  const char *name = cudaGetErrorName(code), *text = cudaGetErrorString(code);
  switch (code) {
    case cudaErrorMemoryAllocation:
      return fail_with(error, ATTNMUX_OUT_OF_MEMORY,
                       "the GPU is out of memory while %s (%s); free some, or pass exec.workspace", doing, name);
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion:
      return fail_with(
          error, ATTNMUX_UNAVAILABLE,
          "this build has no code for this GPU, or its driver is too old for it, while %s: %s (%s); update "
          "the driver, or build with its architecture in ATTNMUX_CUDA_ARCHITECTURES",
          doing, text, name);
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorMisalignedAddress:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
      return fail_with(error, ATTNMUX_DEVICE_ERROR,
                       "the GPU met a fault before or while %s: %s (%s); it may come from work queued earlier, and its "
                       "context cannot be used any more (compute-sanitizer finds the place)",
                       doing, text, name);
    case cudaErrorInvalidResourceHandle:
    case cudaErrorContextIsDestroyed:
      return fail_with(error, ATTNMUX_DEVICE_ERROR,
                       "%s failed: %s (%s); exec.stream must be a live stream of the tensors' device and context",
                       doing, text, name);
    default:
      return fail_with(error, ATTNMUX_DEVICE_ERROR, "%s failed: %s (%s)", doing, text, name);
  }
}

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
  if (data_ != nullptr && cudaFreeAsync(data_, static_cast<cudaStream_t>(stream_)) != cudaSuccess) cudaGetLastError();
}

attnmux_code CudaBlock::allocate(size_t bytes, void* stream, attnmux_error* error) {
  ATTNMUX_CUDA_TRY(cudaMallocAsync(&data_, bytes, static_cast<cudaStream_t>(stream)), "allocating a workspace");
  stream_ = stream;
  return ATTNMUX_OK;
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
