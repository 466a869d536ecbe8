// SPDX-License-Identifier: Apache-2.0
// Reads and writes elements of any floating dtype as a Real (float or double), one at a time or a row at a time.
#pragma once

#include "kernels/cpu/half.h"
#include "kernels/kernel.h"

namespace attnmux {
namespace {

template <typename Real>
inline Real load_element(const Tensor& t, int64_t offset) {
  switch (t.dtype) {
    case ATTNMUX_FP16:
      return static_cast<Real>(fp16_to_fp32(*element<const uint16_t>(t, offset)));
    case ATTNMUX_BF16:
      return static_cast<Real>(bf16_to_fp32(*element<const uint16_t>(t, offset)));
    case ATTNMUX_FP64:
      return static_cast<Real>(*element<const double>(t, offset));
    case ATTNMUX_E4M3:
      return static_cast<Real>(e4m3_to_fp32(*element<const uint8_t>(t, offset)));
    default:
      return static_cast<Real>(*element<const float>(t, offset));
  }
}

template <typename Real>
inline void load_row(const Tensor& t, int64_t offset, int64_t count, Real* row) {
  switch (t.dtype) {
    case ATTNMUX_FP16:
      for (int64_t i = 0; i < count; ++i)
        row[i] = static_cast<Real>(fp16_to_fp32(element<const uint16_t>(t, offset)[i]));
      break;
    case ATTNMUX_BF16:
      for (int64_t i = 0; i < count; ++i)
        row[i] = static_cast<Real>(bf16_to_fp32(element<const uint16_t>(t, offset)[i]));
      break;
    case ATTNMUX_FP64:
      for (int64_t i = 0; i < count; ++i) row[i] = static_cast<Real>(element<const double>(t, offset)[i]);
      break;
    case ATTNMUX_E4M3:
      for (int64_t i = 0; i < count; ++i)
        row[i] = static_cast<Real>(e4m3_to_fp32(element<const uint8_t>(t, offset)[i]));
      break;
    default:
      for (int64_t i = 0; i < count; ++i) row[i] = static_cast<Real>(element<const float>(t, offset)[i]);
      break;
  }
}

template <typename Real>
inline void store_row(const Tensor& t, int64_t offset, int64_t count, const Real* row) {
  for (int64_t i = 0; i < count; ++i) {
    switch (t.dtype) {
      case ATTNMUX_FP16:
        *element<uint16_t>(t, offset + i) = fp32_to_fp16(static_cast<float>(row[i]));
        break;
      case ATTNMUX_BF16:
        *element<uint16_t>(t, offset + i) = fp32_to_bf16(static_cast<float>(row[i]));
        break;
      case ATTNMUX_FP64:
        *element<double>(t, offset + i) = static_cast<double>(row[i]);
        break;
      default:
        *element<float>(t, offset + i) = static_cast<float>(row[i]);
        break;
    }
  }
}

}  // namespace
}  // namespace attnmux
