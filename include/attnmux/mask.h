// SPDX-License-Identifier: Apache-2.0
// Masks are typed values: one slot per kind, on the stack, combined by `&` ("and"). They view the caller's tensors for
// the length of the call. What shifts scores (bias, softcap) is not a mask but an option of its own.
#pragma once

#include <attnmux/tensor.h>

namespace attnmux {

/// Where the diagonal of causal and window masks lies. With i the query, j the key and len the row's key length:
/// top-left keeps j <= i (PyTorch), bottom-right keeps j <= i + len - Sq (FlashAttention, MLX).
enum class Align : int32_t {
  kNone = ATTNMUX_ALIGN_NONE,
  kTopLeft = ATTNMUX_ALIGN_TOP_LEFT,
  kBottomRight = ATTNMUX_ALIGN_BOTTOM_RIGHT,
};

class Mask {
 public:
  /// Masks nothing.
  constexpr Mask() = default;

  /// Without an alignment it is legal only where both mean the same: as many keys as queries, no key lengths.
  static constexpr Mask causal(Align align = Align::kNone) {
    Mask m;
    m.kinds_ = ATTNMUX_MASK_CAUSAL;
    m.causal_align_ = align;
    return m;
  }
  /// Keeps i + δ - left <= j <= i + δ + right; -1 is unlimited.
  static constexpr Mask window(int64_t left, int64_t right, Align align = Align::kNone) {
    Mask m;
    m.kinds_ = ATTNMUX_MASK_WINDOW;
    m.window_left_ = left;
    m.window_right_ = right;
    m.window_align_ = align;
    return m;
  }
  /// Row b attends to the keys 0 … lengths[b]-1. lengths: (B) int32. Moves the bottom-right corner.
  static Mask key_lengths(TensorView lengths) {
    Mask m;
    m.kinds_ = ATTNMUX_MASK_KEY_LENGTHS;
    m.key_lengths_ = lengths;
    return m;
  }
  /// Row b attends to the keys where padding[b][j] is true; holes are honoured. padding: (B, Skv) bool or uint8.
  static Mask key_padding(TensorView padding) {
    Mask m;
    m.kinds_ = ATTNMUX_MASK_KEY_PADDING;
    m.key_padding_ = padding;
    return m;
  }
  /// Query i of head h attends to key j where keep[b][h][i][j] is true. keep: broadcastable to (B, Hq, Sq, Skv), bool
  /// or uint8.
  static Mask dense(TensorView keep) {
    Mask m;
    m.kinds_ = ATTNMUX_MASK_DENSE;
    m.dense_ = keep;
    return m;
  }

  /// Both must attend. One mask of each kind; two of a kind, or two different alignments, is an error that the call
  /// reports. Where only one of causal and window names an alignment, both use it.
  friend constexpr Mask operator&(const Mask& a, const Mask& b) {
    Mask m = a;
    m.conflicts_ |= b.conflicts_ | (a.kinds_ & b.kinds_);
    m.kinds_ |= b.kinds_;
    if (b.kinds_ & ATTNMUX_MASK_CAUSAL) m.causal_align_ = b.causal_align_;
    if (b.kinds_ & ATTNMUX_MASK_WINDOW) {
      m.window_left_ = b.window_left_;
      m.window_right_ = b.window_right_;
      m.window_align_ = b.window_align_;
    }
    if (b.kinds_ & ATTNMUX_MASK_KEY_LENGTHS) m.key_lengths_ = b.key_lengths_;
    if (b.kinds_ & ATTNMUX_MASK_KEY_PADDING) m.key_padding_ = b.key_padding_;
    if (b.kinds_ & ATTNMUX_MASK_DENSE) m.dense_ = b.dense_;
    return m;
  }

  /// Writes the mask into the options of the C ABI.
  void fill(attnmux_options& o) const {
    o.set |= kinds_;
    o.conflicts |= conflicts_;
    o.causal_align = static_cast<int32_t>(causal_align_);
    o.window_align = static_cast<int32_t>(window_align_);
    o.window_left = window_left_;
    o.window_right = window_right_;
    if (kinds_ & ATTNMUX_MASK_KEY_LENGTHS) o.key_lengths = key_lengths_.c();
    if (kinds_ & ATTNMUX_MASK_KEY_PADDING) o.key_padding = key_padding_.c();
    if (kinds_ & ATTNMUX_MASK_DENSE) o.dense_mask = dense_.c();
  }

 private:
  uint64_t kinds_ = 0, conflicts_ = 0;
  Align causal_align_ = Align::kNone, window_align_ = Align::kNone;
  int64_t window_left_ = 0, window_right_ = 0;
  TensorView key_lengths_, key_padding_, dense_;
};

}  // namespace attnmux
