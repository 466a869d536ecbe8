// SPDX-License-Identifier: Apache-2.0
// Numbers from the command line and on the screen; the same in every locale.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux::cli {

inline constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

/// The whole text is one decimal integer in [low, high]; otherwise UsageError names the flag, the text and the range.
int64_t parse_integer(std::string_view flag, std::string_view text, int64_t low, int64_t high = kMaxInt64);
uint64_t parse_unsigned(std::string_view flag, std::string_view text);
/// The whole text is one finite decimal number.
double parse_real(std::string_view flag, std::string_view text);
/// A number from 0 to 3600.
double parse_seconds(std::string_view flag, std::string_view text);

/// Parts between commas; "a,,b" has an empty one.
std::vector<std::string_view> split(std::string_view text, char separator = ',');

std::string fixed(double value, int decimals);
std::string scientific(double value, int decimals = 1);
std::string time_text(double seconds);  ///< "0.9 ms"
std::string bytes_text(double bytes);   ///< "1.8 GB", decimal units
std::string ratio_text(double ratio);   ///< "11.2×"
/// `count` and the noun, with an s unless it is one.
std::string counted(int64_t count, std::string_view noun);

}  // namespace attnmux::cli
