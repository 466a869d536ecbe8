// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "dispatch/tensor_checks.h"

namespace attnmux {
namespace {

float memory[4096];

attnmux_tensor view(int64_t offset, std::vector<int64_t> shape, std::vector<int64_t> strides) {
  attnmux_tensor t{memory + offset, ATTNMUX_FP32, ATTNMUX_CPU, 0, static_cast<int32_t>(shape.size()), {}, {}};
  for (size_t i = 0; i < shape.size(); ++i) {
    t.shape[i] = shape[i];
    t.strides[i] = strides[i];
  }
  return t;
}

std::set<const float*> elements(const attnmux_tensor& t) {
  std::set<const float*> all;
  for (int64_t a = 0; a < t.shape[0]; ++a) {
    for (int64_t b = 0; b < t.shape[1]; ++b) {
      for (int64_t c = 0; c < t.shape[2]; ++c) {
        for (int64_t d = 0; d < t.shape[3]; ++d) {
          all.insert(static_cast<const float*>(t.data) + a * t.strides[0] + b * t.strides[1] + c * t.strides[2] +
                     d * t.strides[3]);
        }
      }
    }
  }
  return all;
}

TEST(Overlap, SlicesOfOneInterleavedBufferDoNot) {
  // (B, S, 4, H, D) with q, k, v and out as slices of the third dimension.
  const auto slice = [](int64_t i) { return view(i * 2 * 8, {2, 5, 2, 8}, {5 * 64, 64, 8, 1}); };
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < 4; ++j) EXPECT_EQ(overlaps(slice(i), slice(j)), i == j) << i << " " << j;
  }
}

TEST(Overlap, NeverMissesASharedElement) {
  uint32_t state = 1;
  const auto random = [&](int64_t n) { return static_cast<int64_t>((state = state * 1664525 + 1013904223) >> 8) % n; };
  int shared = 0, apart = 0;
  for (int repeat = 0; repeat < 20000; ++repeat) {
    attnmux_tensor t[2];
    for (auto& tensor : t) {
      tensor = view(1500 + random(200), {1 + random(3), 1 + random(3), 1 + random(3), 1 + random(4)},
                    {random(80) - 20, random(40) - 10, random(12) - 2, 1});
    }
    const std::set<const float*> a = elements(t[0]), b = elements(t[1]);
    bool share = false;
    for (const float* p : a) share = share || b.contains(p);
    EXPECT_TRUE(!share || overlaps(t[0], t[1])) << repeat;
    (share ? shared : apart) += 1;
  }
  EXPECT_GT(shared, 500);
  EXPECT_GT(apart, 500);
}

TEST(Writable, RefusesElementsThatShareMemoryAndTakesPermutedLayouts) {
  attnmux_error error{};
  EXPECT_EQ(check_writable("out", view(0, {2, 3, 4, 8}, {96, 8, 24, 1}), &error), ATTNMUX_OK);
  EXPECT_NE(check_writable("out", view(0, {2, 3, 4, 8}, {0, 32, 8, 1}), &error), ATTNMUX_OK);
  EXPECT_NE(check_writable("out", view(0, {2, 3, 4, 8}, {96, 7, 24, 1}), &error), ATTNMUX_OK);
  EXPECT_NE(check_writable("out", view(2000, {2, 3, 4, 8}, {-96, 32, 8, 1}), &error), ATTNMUX_OK);
  EXPECT_EQ(check_writable("out", view(0, {1, 3, 4, 8}, {0, 32, 8, 1}), &error), ATTNMUX_OK)
      << "a stride of an extent of 1 means nothing";
}

}  // namespace
}  // namespace attnmux
