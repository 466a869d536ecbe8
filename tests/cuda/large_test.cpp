// SPDX-License-Identifier: Apache-2.0
// Problems too large for the reference loops: sampled rows against the oracle, every row for NaN and for what was never
// written.
#include <algorithm>
#include <cmath>

#include "cuda/device_tensor.h"

namespace attnmux::test {
namespace {

class CudaLarge : public OnGpu {
 protected:
  // First, last, tile edges and their neighbours near both ends and in the middle, and random ones.
  static std::vector<int64_t> sampled_rows(int64_t rows) {
    std::vector<int64_t> sample = {0, rows - 1};
    for (const int64_t edge : {int64_t{32}, int64_t{64}, int64_t{128}, rows / 2 / 128 * 128, rows / 128 * 128})
      for (const int64_t row : {edge - 1, edge, edge + 1}) sample.push_back(row);
    Random random(9);
    for (int i = 0, n = scaled(4, 24, 64); i < n; ++i) sample.push_back(random.between(0, rows - 1));
    std::erase_if(sample, [&](int64_t row) { return row < 0 || row >= rows; });
    std::sort(sample.begin(), sample.end());
    sample.erase(std::unique(sample.begin(), sample.end()), sample.end());
    return sample;
  }

  // A row is a batch entry of one query, whose keys are all or, under a causal mask, those up to its own.
  static std::vector<double> oracle(int32_t kind, Dtype dtype, const std::vector<std::byte>& q,
                                    const std::vector<std::byte>& k, const std::vector<std::byte>& v, int64_t keys,
                                    int64_t heads, int64_t dim, const std::vector<int64_t>& rows, bool causal) {
    const auto n = static_cast<int64_t>(rows.size());
    const size_t row_bytes = static_cast<size_t>(heads * dim) * size_of(dtype);
    std::vector<std::byte> picked(rows.size() * row_bytes);
    std::vector<int32_t> lengths;
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(picked.data() + i * row_bytes, q.data() + static_cast<size_t>(rows[i]) * row_bytes, row_bytes);
      lengths.push_back(static_cast<int32_t>(causal ? rows[i] + 1 : keys));
    }
    const TensorView tq(picked.data(), dtype, {n, 1, heads, dim});
    const TensorView tk(k.data(), dtype, {n, keys, heads, dim}, {0, heads * dim, dim, 1});
    const TensorView tv(v.data(), dtype, {n, keys, heads, dim}, {0, heads * dim, dim, 1});
    AttentionOptions options{.mask = Mask::key_lengths(lengths)};
    const attnmux_options o = options.c();
    std::vector<double> out(static_cast<size_t>(n * heads * dim));
    Status status;
    attnmux_oracle(kind, &tq.c(), &tk.c(), &tv.c(), &o, out.data(), nullptr, status.c_error());
    EXPECT_TRUE(status.ok()) << status.message();
    return out;
  }

  void expect_right(Dtype dtype, int64_t queries, int64_t keys, int64_t heads, int64_t dim, bool causal) {
    for (const Target& t : cuda_kernels()) {
      if (!t.takes(dtype)) continue;
      SCOPED_TRACE(t.text() + " " + std::to_string(queries) + "x" + std::to_string(keys) + " D" + std::to_string(dim));
      const Problem4 x(dtype, 1, queries, keys, heads, dim);
      AttentionOptions o;
      if (causal) o.mask = Mask::causal(Align::kTopLeft);
      const Status status = x.run(t, exec(), o);
      ASSERT_TRUE(status.ok()) << status.message();
      const auto out = x.out.host();
      for (int64_t i = 0; i < x.out.count(); ++i) {
        ASSERT_TRUE(std::isfinite(load(dtype, out.data() + static_cast<size_t>(i) * size_of(dtype))))
            << "element " << i;
      }
      const auto rows = sampled_rows(queries);
      const auto q = x.q.host(), k = x.k.host(), v = x.v.host();
      const auto exact = oracle(ATTNMUX_ORACLE_FP64, dtype, q, k, v, keys, heads, dim, rows, causal);
      const auto plain = oracle(ATTNMUX_ORACLE_PLAIN, dtype, q, k, v, keys, heads, dim, rows, causal);
      double error = 0, plain_error = 0, largest = 0;
      for (size_t i = 0; i < exact.size(); ++i) {
        const size_t per_row = static_cast<size_t>(heads * dim);
        const size_t at = static_cast<size_t>(rows[i / per_row]) * per_row + i % per_row;
        error = std::max(error, std::fabs(load(dtype, out.data() + at * size_of(dtype)) - exact[i]));
        plain_error = std::max(plain_error, std::fabs(plain[i] - exact[i]));
        largest = std::max(largest, std::fabs(exact[i]));
      }
      EXPECT_LE(error, 2 * plain_error + 2 * ulp_at(dtype, largest));
    }
  }
};

TEST_F(CudaLarge, LongSequences) {
  expect_right(Dtype::kBf16, 4608, 4608, 2, 128, false);
  expect_right(Dtype::kFp16, 8191, 8193, 1, 64, false);
  expect_right(Dtype::kBf16, 2049, 2049, 2, 128, true);
  expect_right(Dtype::kFp16, 3000, 3000, 1, 80, true);
  expect_right(Dtype::kBf16, 1500, 5000, 1, 256, false);
  expect_right(Dtype::kFp32, 1025, 2047, 1, 64, true);
}

TEST_F(CudaLarge, ManyKeys) {
  if (intensity() == Intensity::kSmoke) GTEST_SKIP() << "needs minutes under an emulator or a sanitizer";
  expect_right(Dtype::kBf16, 200, 32760, 2, 128, false);
}

TEST_F(CudaLarge, CrossAttention) {
  expect_right(Dtype::kBf16, 32760, 77, 2, 64, false);
  expect_right(Dtype::kBf16, 8190, 512, 2, 128, false);
}

}  // namespace
}  // namespace attnmux::test
