// SPDX-License-Identifier: Apache-2.0
#include "support/tensor.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace attnmux::test {
namespace {

constexpr std::byte kPattern{0xFF};  // NaN in every floating-point type: a gap that is read shows in the result

}  // namespace

std::string name_of(Layout layout) {
  constexpr const char* kNames[] = {"contiguous", "transposed", "padded", "reversed", "interleaved"};
  return kNames[static_cast<int>(layout)];
}

Tensor::Tensor(Dtype dtype, std::vector<int64_t> shape, Layout layout, uint32_t broadcast, int64_t guard)
    : dtype_(dtype), shape_(std::move(shape)), strides_(shape_.size()) {
  const size_t rank = shape_.size();
  std::vector<size_t> order(rank);  // from the innermost dimension outwards
  for (size_t i = 0; i < rank; ++i) order[i] = rank - 1 - i;
  if (layout == Layout::kTransposed && rank >= 3) std::swap(order[1], order[2]);
  int64_t reach = 1;
  for (const size_t dim : order) {
    if (broadcast >> dim & 1) continue;
    strides_[dim] = reach;
    reach *= std::max<int64_t>(shape_[dim], 1);
    if (dim == rank - 1) {
      if (layout == Layout::kPadded) reach += 3;
      if (layout == Layout::kInterleaved) reach *= 3;
    }
  }
  int64_t low = 0;
  if (layout == Layout::kReversed) {
    for (size_t dim = 0; dim + 1 < rank; ++dim) {
      strides_[dim] = -strides_[dim];
      low += strides_[dim] * std::max<int64_t>(shape_[dim] - 1, 0);
    }
  }
  const int64_t offset = layout == Layout::kPadded        ? 1
                         : layout == Layout::kInterleaved ? std::max<int64_t>(rank ? shape_[rank - 1] : 1, 1)
                                                          : 0;
  const size_t size = size_of(dtype_);
  storage_.assign(static_cast<size_t>(reach + offset + 2 * guard) * size, kPattern);
  origin_ = static_cast<size_t>(guard + offset - low) * size;
}

int64_t Tensor::count() const { return std::accumulate(shape_.begin(), shape_.end(), int64_t{1}, std::multiplies<>()); }

size_t Tensor::position(int64_t index) const {
  int64_t offset = 0;
  for (size_t dim = shape_.size(); dim-- > 0;) {
    offset += index % shape_[dim] * strides_[dim];
    index /= shape_[dim];
  }
  return static_cast<size_t>(static_cast<int64_t>(origin_) + offset * static_cast<int64_t>(size_of(dtype_)));
}

std::vector<double> Tensor::values() const {
  std::vector<double> all(given() ? static_cast<size_t>(count()) : 0);
  for (size_t i = 0; i < all.size(); ++i) all[i] = get(static_cast<int64_t>(i));
  return all;
}

void Tensor::fill(const std::function<double(int64_t)>& value) {
  for (int64_t i = 0, n = count(); i < n; ++i) set(i, value(i));
}

TensorView Tensor::view() const {
  if (!given()) return {};
  return TensorView(storage_.data() + origin_, dtype_, std::span<const int64_t>(shape_),
                    std::span<const int64_t>(strides_));
}

MutableTensorView Tensor::mutable_view() {
  if (!given()) return {};
  return MutableTensorView(storage_.data() + origin_, dtype_, std::span<const int64_t>(shape_),
                           std::span<const int64_t>(strides_));
}

void Tensor::poison() {
  std::fill(storage_.begin(), storage_.end(), kPattern);
  const bool real = dtype_ == Dtype::kE4m3 || dtype_ == Dtype::kFp16 || dtype_ == Dtype::kBf16 ||
                    dtype_ == Dtype::kFp32 || dtype_ == Dtype::kFp64;
  fill([&](int64_t) { return real ? std::numeric_limits<double>::quiet_NaN() : 0xA5; });
}

bool Tensor::surroundings_intact() const {
  std::vector<bool> named(storage_.size());
  for (int64_t i = 0, n = count(); i < n; ++i) {
    const size_t from = position(i);
    for (size_t byte = 0; byte < size_of(dtype_); ++byte) named[from + byte] = true;
  }
  for (size_t i = 0; i < storage_.size(); ++i) {
    if (!named[i] && storage_[i] != kPattern) return false;
  }
  return true;
}

std::vector<std::byte> Tensor::element_bytes() const {
  const size_t size = size_of(dtype_);
  std::vector<std::byte> all(given() ? static_cast<size_t>(count()) * size : 0);
  for (size_t i = 0; i * size < all.size(); ++i) std::memcpy(all.data() + i * size, at(static_cast<int64_t>(i)), size);
  return all;
}

}  // namespace attnmux::test
