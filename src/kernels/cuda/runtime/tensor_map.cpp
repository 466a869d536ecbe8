// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runtime/tensor_map.h"

#include <cuda.h>
#include <cudaTypedefs.h>

#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/driver_function.h"

namespace attnmux {
namespace {

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));

constexpr int64_t kMaxStrideBytes = int64_t{1} << 40, kMaxExtent = int64_t{1} << 31;
constexpr uint32_t kPageBytes = 128;

int64_t element_bytes_of(const Tensor& t) { return t.dtype == ATTNMUX_E4M3 ? 1 : t.dtype == ATTNMUX_FP32 ? 4 : 2; }
const char* other_kernels(const Tensor& t) { return t.dtype == ATTNMUX_E4M3 ? "" : "; \"flash\" takes any"; }

PFN_cuTensorMapEncodeTiled_v12000 driver_entry(attnmux_error* error) {
  static const auto entry = driver_function<PFN_cuTensorMapEncodeTiled_v12000>("cuTensorMapEncodeTiled", 12000);
  if (entry == nullptr) {
    fail_with(error, ATTNMUX_UNAVAILABLE, "the NVIDIA driver has no cuTensorMapEncodeTiled; update it to CUDA 13");
  }
  return entry;
}

// A dimension of one element, or whose elements are all the same, needs no stride.
bool moves(const Tensor& t, int i) { return t.shape[i] > 1 && t.strides[i] != 0; }

}  // namespace

int32_t tensor_map_takes(const char* name, const Tensor& t, Reason* reason) {
  if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0) {
    refuse(reason, "%s.data is %p, which is not a multiple of 16 bytes%s", name, t.data, other_kernels(t));
    return 0;
  }
  for (int i = 0; i < 3; ++i) {
    const int64_t bytes = t.strides[i] * element_bytes_of(t);
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

namespace {

// Boxes of `row_bytes` of columns and box1·box2 rows; `order` are the dimensions of t from the inside to the outside.
attnmux_code encode_pages(const Tensor& t, const int (&order)[3], uint32_t box1, uint32_t box2, TensorMap& map,
                          attnmux_error* error, uint32_t row_bytes = kPageBytes) {
  const int64_t element_bytes = element_bytes_of(t);
  const auto encode = driver_entry(error);
  if (encode == nullptr) return ATTNMUX_UNAVAILABLE;
  // Innermost first; the innermost has no stride.
  cuuint64_t extents[4] = {static_cast<cuuint64_t>(t.shape[3])}, strides[3];
  const cuuint32_t box[4] = {row_bytes / static_cast<cuuint32_t>(element_bytes), box1, box2, 1},
                   steps[4] = {1, 1, 1, 1};
  for (int i = 0; i < 3; ++i) {
    const int from = order[i];
    extents[i + 1] = moves(t, from) ? static_cast<cuuint64_t>(t.shape[from]) : 1;
    strides[i] = moves(t, from) ? static_cast<cuuint64_t>(t.strides[from] * element_bytes) : 16;
  }
  const auto type = element_bytes == 1   ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                    : element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16
                                         : CU_TENSOR_MAP_DATA_TYPE_UINT32;
  const auto swizzle = row_bytes == kPageBytes ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B;
  const CUresult result = encode(reinterpret_cast<CUtensorMap*>(&map), type, 4, t.data, extents, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return ATTNMUX_OK;
  return fail_with(error, ATTNMUX_DEVICE_ERROR,
                   "the driver makes no tensor map of a (%lld, %lld, %lld, %lld) tensor: error %d",
                   static_cast<long long>(t.shape[0]), static_cast<long long>(t.shape[1]),
                   static_cast<long long>(t.shape[2]), static_cast<long long>(t.shape[3]), static_cast<int>(result));
}

constexpr int kRowHeadBatch[3] = {1, 2, 0}, kHeadRowBatch[3] = {2, 1, 0};

}  // namespace

attnmux_code encode_tensor_map(const Tensor& t, uint32_t rows, TensorMap& map, attnmux_error* error,
                               uint32_t row_bytes) {
  return encode_pages(t, kRowHeadBatch, rows, 1, map, error, row_bytes);
}

attnmux_code encode_packed_map(const Tensor& t, uint32_t heads, uint32_t rows, TensorMap& map, attnmux_error* error) {
  return encode_pages(t, kHeadRowBatch, heads, rows, map, error);
}

bool bias_map_takes(const Tensor& t) {
  const int64_t bytes = t.dtype == ATTNMUX_FP32 ? 4 : 2;
  if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0 || (t.shape[3] > 1 && t.strides[3] != 1)) return false;
  for (int i = 0; i < 3; ++i) {
    if (t.shape[i] > kMaxExtent) return false;
    if (!moves(t, i)) continue;
    const int64_t stride = t.strides[i] * bytes;
    if (stride <= 0 || stride % 16 != 0 || stride >= kMaxStrideBytes) return false;
  }
  return true;
}

attnmux_code encode_bias_map(const Tensor& bias, uint32_t rows, TensorMap& map, attnmux_error* error) {
  return encode_pages(bias, kHeadRowBatch, rows, 1, map, error);
}

}  // namespace attnmux
