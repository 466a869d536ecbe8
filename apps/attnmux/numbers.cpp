// SPDX-License-Identifier: Apache-2.0
#include "attnmux/numbers.h"

#include <array>
#include <charconv>
#include <cmath>

#include "attnmux/errors.h"

namespace attnmux::cli {
namespace {

[[noreturn]] void refuse(std::string_view flag, std::string_view text, std::string_view accepted) {
  throw UsageError(std::string(flag) + ": \"" + std::string(text) + "\" is not accepted; it takes " +
                   std::string(accepted));
}

template <typename T>
bool parse_all(std::string_view text, T& value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

std::string chars(double value, std::chars_format format, int decimals) {
  std::array<char, 400> buffer;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format, decimals);
  return {buffer.data(), result.ptr};
}

// Three significant digits, as few decimals as they need.
std::string three_digits(double value) { return fixed(value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0); }

}  // namespace

int64_t parse_integer(std::string_view flag, std::string_view text, int64_t low, int64_t high) {
  int64_t value = 0;
  if (parse_all(text, value) && value >= low && value <= high) return value;
  const std::string range = high == kMaxInt64
                                ? "an integer of at least " + std::to_string(low) + ", below 2^63"
                                : "an integer from " + std::to_string(low) + " to " + std::to_string(high);
  refuse(flag, text, range);
}

uint64_t parse_unsigned(std::string_view flag, std::string_view text) {
  uint64_t value = 0;
  if (parse_all(text, value)) return value;
  refuse(flag, text, "an integer from 0 to 18446744073709551615");
}

double parse_real(std::string_view flag, std::string_view text) {
  double value = 0;
  if (parse_all(text, value) && std::isfinite(value)) return value;
  refuse(flag, text, "a finite number such as 0.125 or 1e-3");
}

double parse_seconds(std::string_view flag, std::string_view text) {
  double value = 0;
  if (parse_all(text, value) && value >= 0 && value <= 3600) return value;
  refuse(flag, text, "a number of seconds from 0 to 3600");
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string fixed(double value, int decimals) { return chars(value, std::chars_format::fixed, decimals); }
std::string scientific(double value, int decimals) {
  return value == 0 ? "0" : chars(value, std::chars_format::scientific, decimals);
}

std::string time_text(double seconds) {
  if (seconds < 999.5e-9) return fixed(seconds * 1e9, 0) + " ns";
  if (seconds < 999.5e-6) return three_digits(seconds * 1e6) + " µs";
  if (seconds < 999.5e-3) return three_digits(seconds * 1e3) + " ms";
  return three_digits(seconds) + " s";
}

std::string bytes_text(double bytes) {
  if (bytes < 999.5) return fixed(bytes, 0) + " B";
  if (bytes < 999.5e3) return three_digits(bytes / 1e3) + " kB";
  if (bytes < 999.5e6) return three_digits(bytes / 1e6) + " MB";
  if (bytes < 999.5e9) return three_digits(bytes / 1e9) + " GB";
  return three_digits(bytes / 1e12) + " TB";
}

std::string ratio_text(double ratio) {
  return (ratio < 99.95 ? fixed(ratio, ratio < 9.995 ? 2 : 1) : fixed(ratio, 0)) + "×";
}

std::string counted(int64_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

}  // namespace attnmux::cli
