// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runtime/tensor_map.h"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "kernels/cuda/runtime/cuda_error.h"

namespace attnmux {
namespace {

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));

constexpr int64_t kMaxStrideBytes = int64_t{1} << 40, kMaxExtent = int64_t{1} << 31;

int64_t element_bytes(const Tensor& t) { return t.dtype == ATTNMUX_E4M3 ? 1 : 2; }

// Asked of the runtime, which has loaded the driver: so no program needs libcuda.so to start.
PFN_cuTensorMapEncodeTiled_v12000 driver_entry(attnmux_error* error) {
  static const auto entry = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const cudaError_t code =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
    if (code != cudaSuccess) cudaGetLastError();
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found == cudaDriverEntryPointSuccess ? function
                                                                                                    : nullptr);
  }();
  if (entry == nullptr) {
    fail_with(error, ATTNMUX_UNAVAILABLE, "the NVIDIA driver has no cuTensorMapEncodeTiled; update it to CUDA 13");
  }
  return entry;
}

// A dimension of one element, or whose elements are all the same, needs no stride.
bool moves(const Tensor& t, int i) { return t.shape[i] > 1 && t.strides[i] != 0; }

const char* other_kernels(const Tensor& t) { return t.dtype == ATTNMUX_E4M3 ? "" : "; \"flash\" takes any"; }

}  // namespace

int32_t tensor_map_takes(const char* name, const Tensor& t, Reason* reason) {
  if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0) {
    refuse(reason, "%s.data is %p, which is not a multiple of 16 bytes%s", name, t.data, other_kernels(t));
    return 0;
  }
  for (int i = 0; i < 3; ++i) {
    const int64_t bytes = t.strides[i] * element_bytes(t);
    if (t.shape[i] > kMaxExtent) {
      refuse(reason, "%s has an extent of %lld; it takes up to 2^31", name, static_cast<long long>(t.shape[i]));
      return 0;
    }
    if (t.shape[i] <= 1 || (i != 1 && bytes == 0)) continue;
    if (bytes <= 0 || bytes % 16 != 0 || bytes >= kMaxStrideBytes) {
      refuse(reason, "stride %d of %s is %lld elements; it takes positive multiples of 16 bytes below 2^40%s%s", i,
             name, static_cast<long long>(t.strides[i]), i == 1 ? "" : ", and 0", other_kernels(t));
      return 0;
    }
  }
  return 1;
}

attnmux_code encode_tensor_map(const Tensor& t, uint32_t rows, TensorMap& map, attnmux_error* error,
                               uint32_t row_bytes) {
  const auto encode = driver_entry(error);
  if (encode == nullptr) return ATTNMUX_UNAVAILABLE;
  // Innermost first; the innermost has no stride.
  cuuint64_t extents[4] = {static_cast<cuuint64_t>(t.shape[3])}, strides[3];
  const cuuint32_t box[4] = {row_bytes / static_cast<uint32_t>(element_bytes(t)), rows, 1, 1}, steps[4] = {1, 1, 1, 1};
  constexpr int kOrder[3] = {1, 2, 0};  // row, head, batch
  for (int i = 0; i < 3; ++i) {
    const int from = kOrder[i];
    extents[i + 1] = moves(t, from) ? static_cast<cuuint64_t>(t.shape[from]) : 1;
    strides[i] = moves(t, from) ? static_cast<cuuint64_t>(t.strides[from] * element_bytes(t)) : 16;
  }
  const CUresult result = encode(reinterpret_cast<CUtensorMap*>(&map),
                                 element_bytes(t) == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_UINT16,
                                 4, t.data, extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 row_bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return ATTNMUX_OK;
  return fail_with(error, ATTNMUX_DEVICE_ERROR,
                   "the driver makes no tensor map of a (%lld, %lld, %lld, %lld) tensor: error %d",
                   static_cast<long long>(t.shape[0]), static_cast<long long>(t.shape[1]),
                   static_cast<long long>(t.shape[2]), static_cast<long long>(t.shape[3]), static_cast<int>(result));
}

}  // namespace attnmux
