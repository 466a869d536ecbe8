// SPDX-License-Identifier: Apache-2.0
// Tests that run once per input dtype.
#pragma once

#include <gtest/gtest.h>

#include <ostream>

#include "support/conform.h"

namespace attnmux {
inline void PrintTo(Dtype dtype, std::ostream* stream) { *stream << test::name_of(dtype); }
}  // namespace attnmux

namespace attnmux::test {

class ByDtype : public ::testing::TestWithParam<Dtype> {
 protected:
  void SetUp() override {
    for (const Target& t : kernels()) {
      if (t.takes(GetParam())) return;
    }
    GTEST_SKIP() << "no kernel here takes " << name_of(GetParam());
  }
  /// A spec of this dtype to start from.
  Spec spec() const {
    Spec s;
    s.dtype = GetParam();
    if (intensity() == Intensity::kSmoke) s.seqlen_q = 17, s.head_dim = 16;
    return s;
  }
};

inline std::string dtype_test_name(const ::testing::TestParamInfo<Dtype>& info) { return name_of(info.param); }

}  // namespace attnmux::test

/// A suite of ByDtype tests for all dtypes of the contract.
#define ATTNMUX_TEST_SUITE_BY_DTYPE(suite)                                                         \
  INSTANTIATE_TEST_SUITE_P(                                                                        \
      Dtype, suite,                                                                                \
      ::testing::Values(::attnmux::Dtype::kFp32, ::attnmux::Dtype::kFp16, ::attnmux::Dtype::kBf16, \
                        ::attnmux::Dtype::kFp64, ::attnmux::Dtype::kE4m3),                         \
      ::attnmux::test::dtype_test_name)
