// SPDX-License-Identifier: Apache-2.0
#include "support/numbers.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace attnmux::test {
namespace {

struct Format {
  int precision;     // significand bits, the hidden one included
  int min_exponent;  // of the smallest normal number, value 2^min_exponent
  int max_exponent;  // of the largest finite number
};

Format format_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFp16:
      return {11, -14, 15};
    case Dtype::kBf16:
      return {8, -126, 127};
    case Dtype::kFp32:
      return {24, -126, 127};
    case Dtype::kE4m3:
      return {4, -6, 8};
    default:
      return {53, -1022, 1023};
  }
}

// The exponent e with 2^e <= |value| < 2^(e+1), at least min_exponent.
int exponent_at(const Format& f, double value) {
  if (value == 0) return f.min_exponent;
  const int e = std::ilogb(value);
  return e < f.min_exponent ? f.min_exponent : e;
}

template <typename T>
T read(const void* element) {
  T value;
  std::memcpy(&value, element, sizeof(value));
  return value;
}
template <typename T>
void write(void* element, T value) {
  std::memcpy(element, &value, sizeof(value));
}

double from_half(uint16_t bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31)
    return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

double from_e4m3(uint8_t bits) {
  const double sign = bits & 0x80 ? -1 : 1;
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  if (exponent == 15 && fraction == 7) return std::numeric_limits<double>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(fraction, -9);
  return sign * std::ldexp(8 + fraction, exponent - 10);
}

// `value` is representable; what lies beyond the largest number is NaN, since there is no infinity.
uint8_t to_e4m3(double value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (!std::isfinite(value)) return 0x7F;
  const double magnitude = std::fabs(value);
  if (magnitude < std::ldexp(1.0, -6)) return static_cast<uint8_t>(sign | static_cast<int>(std::ldexp(magnitude, 9)));
  const int e = std::ilogb(magnitude);
  const int fraction = static_cast<int>(std::ldexp(magnitude, 3 - e)) - 8;
  return static_cast<uint8_t>(sign | (e + 7) << 3 | fraction);
}

uint16_t to_half(double value) {  // `value` is representable
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return 0x7E00;
  if (std::isinf(value)) return sign | 0x7C00;
  const double magnitude = std::fabs(value);
  if (magnitude < std::ldexp(1.0, -14))
    return static_cast<uint16_t>(sign | static_cast<int>(std::ldexp(magnitude, 24)));
  const int e = std::ilogb(magnitude);
  const int fraction = static_cast<int>(std::ldexp(magnitude, 10 - e)) - 1024;
  return static_cast<uint16_t>(sign | (e + 15) << 10 | fraction);
}

}  // namespace

size_t size_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFp64:
      return 8;
    case Dtype::kFp32:
    case Dtype::kInt32:
      return 4;
    case Dtype::kFp16:
    case Dtype::kBf16:
      return 2;
    default:
      return 1;
  }
}

std::string name_of(Dtype dtype) {
  constexpr const char* kNames[] = {"none", "fp32", "fp16", "bf16", "fp64", "bool", "uint8", "int32", "e4m3"};
  return kNames[static_cast<int32_t>(dtype)];
}

double round_to(Dtype dtype, double value) {
  if (dtype == Dtype::kFp64 || value == 0 || !std::isfinite(value)) return value;
  const Format f = format_of(dtype);
  const int shift = f.precision - 1 - exponent_at(f, value);
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, shift)), -shift);
  // The code of E4M3 that would be the largest number is NaN.
  const double largest = dtype == Dtype::kE4m3 ? 448 : std::ldexp(2 - std::ldexp(1.0, 1 - f.precision), f.max_exponent);
  return std::fabs(rounded) > largest ? std::copysign(std::numeric_limits<double>::infinity(), value) : rounded;
}

double rounding_of(Dtype dtype) { return std::ldexp(1.0, -format_of(dtype).precision); }

double ulp_at(Dtype dtype, double value) {
  const Format f = format_of(dtype);
  return std::ldexp(1.0, exponent_at(f, value) - f.precision + 1);
}

double load(Dtype dtype, const void* element) {
  switch (dtype) {
    case Dtype::kFp64:
      return read<double>(element);
    case Dtype::kFp32:
      return static_cast<double>(read<float>(element));
    case Dtype::kFp16:
      return from_half(read<uint16_t>(element));
    case Dtype::kBf16:
      return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(read<uint16_t>(element)) << 16));
    case Dtype::kInt32:
      return read<int32_t>(element);
    case Dtype::kE4m3:
      return from_e4m3(read<uint8_t>(element));
    default:
      return read<uint8_t>(element);
  }
}

void store(Dtype dtype, void* element, double value) {
  switch (dtype) {
    case Dtype::kFp64:
      return write(element, value);
    case Dtype::kFp32:
      return write(element, static_cast<float>(value));
    case Dtype::kFp16:
      return write(element, to_half(round_to(dtype, value)));
    case Dtype::kBf16: {
      const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(round_to(dtype, value)));
      return write(element, static_cast<uint16_t>(std::isnan(value) ? 0x7FC0 : bits >> 16));
    }
    case Dtype::kInt32:
      return write(element, static_cast<int32_t>(value));
    case Dtype::kE4m3:
      return write(element, to_e4m3(round_to(dtype, value)));
    case Dtype::kBool:
      return write(element, static_cast<uint8_t>(value != 0));
    default:
      return write(element, static_cast<uint8_t>(value));
  }
}

uint64_t Random::bits() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

double Random::uniform() { return std::ldexp(static_cast<double>(bits() >> 11), -53); }

double Random::normal() {
  // Sum of twelve uniforms: no transcendental function, so the same bits on every C library.
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += uniform();
  return sum;
}

int64_t Random::between(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
}

}  // namespace attnmux::test
