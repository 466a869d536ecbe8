// SPDX-License-Identifier: Apache-2.0
// Element types for the tests, written apart from the library's own conversions: bits <-> double, correctly rounded.
#pragma once

#include <attnmux/attnmux.h>

#include <cstdint>
#include <string>

namespace attnmux::test {

size_t size_of(Dtype dtype);
std::string name_of(Dtype dtype);

/// What out is where q, k and v have this type.
inline Dtype output_dtype(Dtype dtype) { return dtype == Dtype::kE4m3 ? Dtype::kBf16 : dtype; }

/// The nearest value of the type, ties to even; beyond the largest finite value becomes infinity.
double round_to(Dtype dtype, double value);
/// Half a unit in the last place of 1: the relative error of one rounding.
double rounding_of(Dtype dtype);
/// The distance between neighbours at |value|, never below the smallest normal number's.
double ulp_at(Dtype dtype, double value);

double load(Dtype dtype, const void* element);
void store(Dtype dtype, void* element, double value);  // rounds; bool stores value != 0

/// splitmix64: the same numbers on every platform and standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits();
  double uniform();                            // [0, 1)
  double normal();                             // mean 0, deviation 1
  int64_t between(int64_t low, int64_t high);  // both ends included
  bool chance(double p) { return uniform() < p; }
  template <typename Choices>
  auto pick(const Choices& choices) {
    return *(std::begin(choices) + between(0, static_cast<int64_t>(std::size(choices)) - 1));
  }

 private:
  uint64_t state_;
};

}  // namespace attnmux::test
