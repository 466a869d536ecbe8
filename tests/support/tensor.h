// SPDX-License-Identifier: Apache-2.0
// A tensor that owns its memory, in any layout. Outputs lie between guard bands, so that what a call must not touch is
// known to the byte; inputs end where their memory ends, so that a sanitizer sees the first element read beyond.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "support/numbers.h"

namespace attnmux::test {

/// How the dimensions lie in memory. Strides count elements.
enum class Layout {
  kContiguous,   // (a, b, c, d) in this order
  kTransposed,   // the two dimensions before the last exchanged: a BHSD tensor seen as BSHD, HTD as THD
  kPadded,       // every row followed by unused elements, and an odd offset
  kReversed,     // dimensions before the last run backwards (inputs only)
  kInterleaved,  // each row is a slice of a row three times as long, as in a packed qkv projection
};
inline constexpr Layout kInputLayouts[] = {Layout::kContiguous, Layout::kTransposed, Layout::kPadded, Layout::kReversed,
                                           Layout::kInterleaved};
inline constexpr Layout kOutputLayouts[] = {Layout::kContiguous, Layout::kTransposed, Layout::kPadded,
                                            Layout::kInterleaved};
std::string name_of(Layout layout);

class Tensor {
 public:
  Tensor() = default;
  /// `broadcast` has a bit per dimension that gets stride 0: its extent stays, its memory holds one.
  Tensor(Dtype dtype, std::vector<int64_t> shape, Layout layout = Layout::kContiguous, uint32_t broadcast = 0,
         int64_t guard = 0);
  static Tensor output(Dtype dtype, std::vector<int64_t> shape, Layout layout = Layout::kContiguous) {
    return Tensor(dtype, std::move(shape), layout, 0, 64);
  }

  Dtype dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t count() const;  // of elements that can be named, broadcast ones as often as they appear
  bool given() const { return dtype_ != Dtype::kNone; }

  /// Elements in row-major order of the shape, whatever the layout.
  double get(int64_t index) const { return load(dtype_, at(index)); }
  void set(int64_t index, double value) { store(dtype_, at(index), value); }
  std::byte* at(int64_t index) { return storage_.data() + position(index); }
  const std::byte* at(int64_t index) const { return storage_.data() + position(index); }
  std::vector<double> values() const;
  void fill(const std::function<double(int64_t index)>& value);

  TensorView view() const;
  MutableTensorView mutable_view();

  /// The whole storage, guards and gaps included; for "unchanged" and "bitwise equal".
  const std::vector<std::byte>& bytes() const { return storage_; }
  /// Every element NaN (or 0xA5 for integers), everything around it a pattern.
  void poison();
  /// Did the guards and gaps around the elements keep the pattern that poison() wrote?
  bool surroundings_intact() const;
  /// The elements' bytes alone, in row-major order.
  std::vector<std::byte> element_bytes() const;

 private:
  size_t position(int64_t index) const;  // in bytes from the start of the storage
  Dtype dtype_ = Dtype::kNone;
  std::vector<int64_t> shape_, strides_;
  size_t origin_ = 0;  // bytes from the start of the storage to element 0
  std::vector<std::byte> storage_;
};

}  // namespace attnmux::test
