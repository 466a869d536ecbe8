// SPDX-License-Identifier: Apache-2.0
// What the tests of both formats share.
#pragma once

#include <gtest/gtest.h>
#include <io/npy.h>
#include <io/safetensors.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace attnmux::io::testing {

inline std::string golden(const std::string& name) { return ATTNMUX_SOURCE_DIR "/tests/io/goldens/" + name; }

/// A path in the folder for temporary files, unique to the running test.
inline std::string temporary(const std::string& name) {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  return ::testing::TempDir() + test->test_suite_name() + "." + test->name() + "." + name;
}

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Runs `action` and returns the message of the FileError that it has to throw.
template <typename Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const FileError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no FileError";
  return "";
}

/// The files of make_goldens.py: element i is (i - 3) / 2 for floating dtypes, i - 3 for int32.
template <typename T>
void expect_golden_values(const NamedTensor& tensor) {
  const auto values = tensor.values<T>();
  ASSERT_EQ(static_cast<int64_t>(values.size()), tensor.num_elements());
  for (size_t i = 0; i < values.size(); ++i) {
    const double x = static_cast<double>(i);
    if constexpr (std::is_same_v<T, bool>) {
      EXPECT_EQ(values[i], i % 2 == 1) << tensor.name << " element " << i;
    } else {
      const double expected = std::is_floating_point_v<T> ? (x - 3) / 2 : std::is_signed_v<T> ? x - 3 : x;
      EXPECT_EQ(static_cast<double>(values[i]), expected) << tensor.name << " element " << i;
    }
  }
}

/// The same for 16-bit floats: an exponent of `exponent_bits`, and all values exact.
inline void expect_golden_values_16(const NamedTensor& tensor, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits;
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, tensor.data + 2 * i, 2);
    const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
    const double mantissa = 1.0 + static_cast<double>(bits & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits);
    const double size = exponent == 0 ? 0.0 : std::ldexp(mantissa, exponent - ((1 << (exponent_bits - 1)) - 1));
    EXPECT_EQ(bits >> 15 != 0 ? -size : size, (static_cast<double>(i) - 3) / 2) << tensor.name << " element " << i;
  }
}

}  // namespace attnmux::io::testing
