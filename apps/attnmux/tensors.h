// SPDX-License-Identifier: Apache-2.0
// Tensors in host memory: random inputs, and conversions between dtypes.
#pragma once

#include <attnmux/tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace attnmux::cli {

size_t element_size(Dtype dtype);

/// IEEE binary16 and bfloat16, round to nearest even.
float fp16_to_float(uint16_t bits);
uint16_t float_to_fp16(float value);
float bf16_to_float(uint16_t bits);
uint16_t float_to_bf16(float value);

/// A contiguous tensor that owns its memory, aligned to 64 bytes.
class HostTensor {
 public:
  HostTensor() = default;
  /// Uninitialised; throws std::bad_alloc.
  HostTensor(Dtype dtype, std::vector<int64_t> shape);

  Dtype dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t elements() const { return elements_; }
  size_t bytes() const;
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  MutableTensorView view() const;

  /// Close to a standard normal, within ±3.4; a function of seed and index only, the same on every machine.
  void fill_normal(uint64_t seed, double factor = 1);
  /// Every bit set: NaN in each float dtype, so that an element that nobody wrote is seen.
  void poison();
  std::vector<double> to_doubles() const;

 private:
  Dtype dtype_ = Dtype::kNone;
  std::vector<int64_t> shape_;
  int64_t elements_ = 0;
  std::shared_ptr<std::byte> data_;
};

/// The elements of a contiguous view of any float dtype, of bool, uint8 or int32.
std::vector<double> to_doubles(const TensorView& view);
/// A contiguous view in another float dtype.
HostTensor converted(const TensorView& view, Dtype dtype);

}  // namespace attnmux::cli
