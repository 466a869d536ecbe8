// SPDX-License-Identifier: Apache-2.0
// Text for errors and refusals: fixed size, no heap, the same in every locale.
#pragma once

#include <attnmux/c/types.h>

#include <charconv>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace attnmux {

/// A message of at most N-1 characters; what does not fit is cut and marked.
template <size_t N>
class FixedText {
 public:
  FixedText& operator<<(std::string_view text) {
    const size_t room = N - 1 - length_;
    const size_t n = text.size() < room ? text.size() : room;
    std::memcpy(text_ + length_, text.data(), n);
    length_ += n;
    if (n < text.size()) std::memcpy(text_ + N - 1 - kCut.size(), kCut.data(), kCut.size());
    text_[length_] = 0;
    return *this;
  }
  FixedText& operator<<(const char* text) { return *this << std::string_view(text); }
  template <typename Number>
    requires(std::is_arithmetic_v<Number> && !std::is_same_v<Number, bool> && !std::is_same_v<Number, char>)
  FixedText& operator<<(Number value) {
    char digits[32] = {};
    const auto [end, error] = std::to_chars(digits, digits + sizeof(digits), value);
    return *this << std::string_view(digits, static_cast<size_t>(end - digits));
  }
  std::string_view view() const { return {text_, length_}; }
  const char* c_str() const { return text_; }
  size_t size() const { return length_; }

 private:
  static constexpr std::string_view kCut = "\xE2\x80\xA6";  // …
  char text_[N] = {};
  size_t length_ = 0;
};

using Message = FixedText<sizeof(attnmux_error::message)>;

/// Fills `error`, which may be null, and returns the code. Every message starts with "[attention] ".
attnmux_code fail(attnmux_error* error, attnmux_code code, const Message& message);

/// A shape as "(2, 16, 8)".
struct Shape {
  const attnmux_tensor& tensor;
};
template <size_t N>
FixedText<N>& operator<<(FixedText<N>& text, const Shape& shape) {
  text << "(";
  for (int32_t i = 0; i < shape.tensor.ndim && i < 4; ++i) text << (i == 0 ? "" : ", ") << shape.tensor.shape[i];
  return text << ")";
}

/// `Message() << …` returns an lvalue reference to a temporary; this makes it an argument.
#define ATTNMUX_MESSAGE(...) (::attnmux::Message() << __VA_ARGS__)

/// Returns from the function if `call` fails.
#define ATTNMUX_TRY(call)                                                     \
  do {                                                                        \
    if (const attnmux_code code_ = (call); code_ != ATTNMUX_OK) return code_; \
  } while (false)

}  // namespace attnmux
