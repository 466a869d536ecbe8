// SPDX-License-Identifier: Apache-2.0
#include "attnmux/tensors.h"

#include <io/tensor_file.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <new>

namespace attnmux::cli {
namespace {

template <typename T>
T load(const std::byte* data, int64_t i) {
  T value;
  std::memcpy(&value, data + static_cast<size_t>(i) * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void store(std::byte* data, int64_t i, T value) {
  std::memcpy(data + static_cast<size_t>(i) * sizeof(T), &value, sizeof(T));
}

double load_element(const std::byte* data, Dtype dtype, int64_t i) {
  switch (dtype) {
    case Dtype::kFp32:
      return load<float>(data, i);
    case Dtype::kFp16:
      return fp16_to_float(load<uint16_t>(data, i));
    case Dtype::kBf16:
      return bf16_to_float(load<uint16_t>(data, i));
    case Dtype::kFp64:
      return load<double>(data, i);
    case Dtype::kInt32:
      return load<int32_t>(data, i);
    case Dtype::kBool:
    case Dtype::kUint8:
      return load<uint8_t>(data, i);
    default:
      return std::nan("");
  }
}

void store_element(std::byte* data, Dtype dtype, int64_t i, double value) {
  switch (dtype) {
    case Dtype::kFp32:
      return store(data, i, static_cast<float>(value));
    case Dtype::kFp16:
      return store(data, i, float_to_fp16(static_cast<float>(value)));
    case Dtype::kBf16:
      return store(data, i, float_to_bf16(static_cast<float>(value)));
    case Dtype::kFp64:
      return store(data, i, value);
    default:
      return;
  }
}

// SplitMix64's output function (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// The sum of four 16-bit uniforms (Irwin-Hall), centred and scaled to unit variance: no function of libm, so every
// machine gets the same bits.
double normal(uint64_t seed, int64_t index) {
  const uint64_t bits = mixed(mixed(seed) + static_cast<uint64_t>(index + 1) * 0x9E3779B97F4A7C15);
  const auto sum = static_cast<double>((bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48));
  constexpr double kMean = 2.0 * 65535.0, kInverseDeviation = 1.0 / 37837.2273;
  return (sum - kMean) * kInverseDeviation;
}

}  // namespace

size_t element_size(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFp64:
      return 8;
    case Dtype::kFp32:
    case Dtype::kInt32:
      return 4;
    case Dtype::kFp16:
    case Dtype::kBf16:
      return 2;
    case Dtype::kBool:
    case Dtype::kUint8:
    case Dtype::kE4m3:
      return 1;
    case Dtype::kNone:
      break;
  }
  return 0;
}

float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays one
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float fp16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 0x1F, mantissa = bits & 0x3FF;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000 | mantissa << 13);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t float_to_fp16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00);
  if (magnitude >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);  // 65520 and above round to infinity
  if (magnitude < 0x38800000) {  // below 2^-14: adding 1/2 lines the subnormal's last bit up with that of the sum
    const float sum = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3F000000));
  }
  const uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - (112U << 10)));
}

HostTensor::HostTensor(Dtype dtype, std::vector<int64_t> shape) : dtype_(dtype), shape_(std::move(shape)) {
  const auto count = io::count_elements(shape_);
  if (!count || *count > INT64_MAX / 8) throw std::bad_alloc();
  elements_ = *count;
  data_ = io::allocate_aligned(bytes());
}

size_t HostTensor::bytes() const { return static_cast<size_t>(elements_) * element_size(dtype_); }

MutableTensorView HostTensor::view() const { return {data_.get(), dtype_, std::span<const int64_t>(shape_)}; }

void HostTensor::fill_normal(uint64_t seed, double factor) {
  for (int64_t i = 0; i < elements_; ++i) store_element(data(), dtype_, i, factor * normal(seed, i));
}

void HostTensor::poison() {
  if (bytes() > 0) std::memset(data(), 0xFF, bytes());
}

std::vector<double> HostTensor::to_doubles() const { return cli::to_doubles(view()); }

std::vector<double> to_doubles(const TensorView& view) {
  const attnmux_tensor& t = view.c();
  const auto count = io::count_elements({t.shape, static_cast<size_t>(t.ndim)}).value_or(0);
  std::vector<double> values(static_cast<size_t>(count));
  const auto* data = static_cast<const std::byte*>(t.data);
  for (int64_t i = 0; i < count; ++i) {
    values[static_cast<size_t>(i)] = load_element(data, static_cast<Dtype>(t.dtype), i);
  }
  return values;
}

HostTensor converted(const TensorView& view, Dtype dtype) {
  const attnmux_tensor& t = view.c();
  HostTensor tensor(dtype, std::vector<int64_t>(t.shape, t.shape + t.ndim));
  const auto* data = static_cast<const std::byte*>(t.data);
  for (int64_t i = 0; i < tensor.elements(); ++i) {
    store_element(tensor.data(), dtype, i, load_element(data, static_cast<Dtype>(t.dtype), i));
  }
  return tensor;
}

}  // namespace attnmux::cli
