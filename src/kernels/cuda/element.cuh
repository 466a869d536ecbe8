// SPDX-License-Identifier: Apache-2.0
// Reads and writes single elements of any floating dtype on the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/kernel.h"

namespace attnmux {
namespace {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T, typename Real>
__device__ inline T from_real(Real x) {
  if constexpr (sizeof(T) == 2) {
    if constexpr (__is_same(T, __half)) {
      return __float2half_rn(static_cast<float>(x));
    } else {
      return __float2bfloat16_rn(static_cast<float>(x));
    }
  } else {
    return static_cast<T>(x);
  }
}

template <typename Real, typename T>
__device__ inline Real to_real(T x) {
  if constexpr (sizeof(T) == 2) {
    return static_cast<Real>(to_float(x));
  } else {
    return static_cast<Real>(x);
  }
}

// An element of the bias, which has a dtype of its own.
__device__ inline float load_bias(const Tensor& t, int64_t offset) {
  switch (t.dtype) {
    case ATTNMUX_FP16:
      return to_float(*element<const __half>(t, offset));
    case ATTNMUX_BF16:
      return to_float(*element<const __nv_bfloat16>(t, offset));
    default:
      return *element<const float>(t, offset);
  }
}

// Problems in fp64 may have a bias in fp64.
template <typename Real>
__device__ inline Real load_bias_as(const Tensor& t, int64_t offset) {
  if (t.dtype == ATTNMUX_FP64) return static_cast<Real>(*element<const double>(t, offset));
  return static_cast<Real>(load_bias(t, offset));
}

}  // namespace
}  // namespace attnmux
