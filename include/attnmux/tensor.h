// SPDX-License-Identifier: Apache-2.0
// Views of tensors that somebody else owns: pointer, dtype, device, up to four extents and strides.
#pragma once

#include <attnmux/attnmux_c.h>

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <ranges>
#include <span>
#include <type_traits>

namespace attnmux {

enum class Dtype : int32_t {
  kNone = 0,
  kFp32 = ATTNMUX_FP32,
  kFp16 = ATTNMUX_FP16,
  kBf16 = ATTNMUX_BF16,
  kFp64 = ATTNMUX_FP64,
  kBool = ATTNMUX_BOOL,
  kUint8 = ATTNMUX_UINT8,
  kInt32 = ATTNMUX_INT32,
  kE4m3 = ATTNMUX_E4M3,
};

struct Device {
  int32_t type = ATTNMUX_CPU;
  int32_t id = 0;
  static constexpr Device cpu() { return {ATTNMUX_CPU, 0}; }
  static constexpr Device cuda(int32_t id = 0) { return {ATTNMUX_CUDA, id}; }
  friend bool operator==(const Device&, const Device&) = default;
};

/// The dtype of a C++ type. Specialise it for a 16-bit float type of your own: `static constexpr Dtype value`.
template <typename T>
struct DtypeOf {};
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::kFp32;
};
template <>
struct DtypeOf<double> {
  static constexpr Dtype value = Dtype::kFp64;
};
template <>
struct DtypeOf<bool> {
  static constexpr Dtype value = Dtype::kBool;
};
template <>
struct DtypeOf<uint8_t> {
  static constexpr Dtype value = Dtype::kUint8;
};
template <>
struct DtypeOf<int32_t> {
  static constexpr Dtype value = Dtype::kInt32;
};

template <typename T>
concept Element = requires { DtypeOf<std::remove_const_t<T>>::value; };

namespace detail {
/// A list of extents or strides: `{B, S, H, D}`, a span, a vector or an array. Any rank is carried, so that a wrong one
/// is reported by the call and not lost here.
class Extents {
 public:
  Extents(std::initializer_list<int64_t> list) : Extents(std::span<const int64_t>(list.begin(), list.size())) {}
  Extents(std::span<const int64_t> values) : count_(static_cast<int32_t>(values.size())) {
    for (int32_t i = 0; i < count_ && i < 4; ++i) value_[i] = values[static_cast<size_t>(i)];
  }
  int32_t count() const { return count_; }
  int64_t operator[](int32_t i) const { return value_[i]; }

 private:
  int64_t value_[4] = {};
  int32_t count_;
};

inline attnmux_tensor make_tensor(const void* data, Dtype dtype, const Extents& shape, Device device) {
  attnmux_tensor t{const_cast<void*>(data), static_cast<int32_t>(dtype), device.type, device.id, shape.count(), {}, {}};
  for (int32_t i = (t.ndim < 4 ? t.ndim : 4) - 1; i >= 0; --i) {
    t.shape[i] = shape[i];
    // Wraps instead of overflowing: sizes whose product overflows are refused by the call.
    t.strides[i] =
        i == 3 || i == t.ndim - 1
            ? 1
            : static_cast<int64_t>(static_cast<uint64_t>(t.strides[i + 1]) * static_cast<uint64_t>(t.shape[i + 1]));
  }
  return t;
}

inline attnmux_tensor make_tensor(const void* data, Dtype dtype, const Extents& shape, const Extents& strides,
                                  Device device) {
  attnmux_tensor t = make_tensor(data, dtype, shape, device);
  if (strides.count() != shape.count()) t.ndim = -1;  // reported by the call
  for (int32_t i = 0; i < t.ndim && i < 4; ++i) t.strides[i] = strides[i];
  return t;
}
}  // namespace detail

/// A tensor that is written to: `out` and `lse`.
class MutableTensorView {
 public:
  /// No tensor; also the default of optional arguments.
  MutableTensorView() = default;
  /// Contiguous, dtype from the pointer's type. `pointer` may be null for planning.
  template <Element T>
    requires(!std::is_const_v<T>)
  MutableTensorView(T* pointer, const detail::Extents& shape, Device device = {})
      : t_(detail::make_tensor(pointer, DtypeOf<T>::value, shape, device)) {}
  MutableTensorView(void* pointer, Dtype dtype, const detail::Extents& shape, Device device = {})
      : t_(detail::make_tensor(pointer, dtype, shape, device)) {}
  /// Any layout; strides count elements.
  MutableTensorView(void* pointer, Dtype dtype, const detail::Extents& shape, const detail::Extents& strides,
                    Device device = {})
      : t_(detail::make_tensor(pointer, dtype, shape, strides, device)) {}
  explicit MutableTensorView(const attnmux_tensor& t) : t_(t) {}

  /// The view with two dimensions exchanged: a (B,H,S,D) tensor becomes (B,S,H,D) by `transposed(1, 2)`.
  MutableTensorView transposed(int a, int b) const;
  const attnmux_tensor& c() const { return t_; }

 private:
  attnmux_tensor t_{};
};

/// A tensor that is only read: q, k, v, masks, bias, lengths.
class TensorView {
 public:
  TensorView() = default;
  template <Element T>
  TensorView(T* pointer, const detail::Extents& shape, Device device = {})
      : t_(detail::make_tensor(pointer, DtypeOf<std::remove_const_t<T>>::value, shape, device)) {}
  TensorView(const void* pointer, Dtype dtype, const detail::Extents& shape, Device device = {})
      : t_(detail::make_tensor(pointer, dtype, shape, device)) {}
  TensorView(const void* pointer, Dtype dtype, const detail::Extents& shape, const detail::Extents& strides,
             Device device = {})
      : t_(detail::make_tensor(pointer, dtype, shape, strides, device)) {}
  /// A one-dimensional view of a container that outlives the call (lengths, cu_seqlens). Temporaries do not compile.
  template <std::ranges::contiguous_range R>
    requires(std::ranges::borrowed_range<R> && std::ranges::sized_range<R> &&
             Element<std::remove_reference_t<std::ranges::range_reference_t<R>>>)
  TensorView(R&& values) : TensorView(std::ranges::data(values), {static_cast<int64_t>(std::ranges::size(values))}) {}
  TensorView(const MutableTensorView& view) : t_(view.c()) {}
  explicit TensorView(const attnmux_tensor& t) : t_(t) {}

  TensorView transposed(int a, int b) const {
    TensorView view = *this;
    std::swap(view.t_.shape[a], view.t_.shape[b]);
    std::swap(view.t_.strides[a], view.t_.strides[b]);
    return view;
  }
  const attnmux_tensor& c() const { return t_; }

 private:
  attnmux_tensor t_{};
};

inline MutableTensorView MutableTensorView::transposed(int a, int b) const {
  return MutableTensorView(TensorView(*this).transposed(a, b).c());
}

}  // namespace attnmux
