// SPDX-License-Identifier: Apache-2.0
// Views of every stride: BHSD, padded rows, slices of a packed projection, backwards, broadcast, odd offsets.
#include <numeric>

#include "support/by_dtype.h"

namespace attnmux::test {
namespace {

class Layouts : public ByDtype {};
ATTNMUX_TEST_SUITE_BY_DTYPE(Layouts);

TEST_P(Layouts, EveryInputLayout) {
  for (const Layout layout : kInputLayouts) {
    for (const int64_t d : {24, 64}) {
      if (intensity() == Intensity::kSmoke && d == 64) continue;
      Spec s = spec();
      s.head_dim = d;
      s.heads_q = 4;
      s.layout_q = layout;
      conform(s);
      s.layout_k = layout;
      conform(s);
      s.layout_v = layout;
      s.causal = true;
      s.causal_align = Align::kBottomRight;
      conform(s);
    }
  }
}

TEST_P(Layouts, EveryOutputLayout) {
  for (const Layout layout : kOutputLayouts) {
    for (const int64_t dv : {1, 24, 64}) {
      if (intensity() == Intensity::kSmoke && dv == 64) continue;
      Spec s = spec();
      s.head_dim_v = dv;
      s.layout_out = layout;
      conform(s);
    }
  }
}

// k and v with stride 0 over batch, sequence or heads: one key for all, one head for all.
TEST_P(Layouts, BroadcastKeysAndValues) {
  for (uint32_t dims = 1; dims < 8; ++dims) {
    Spec s = spec();
    s.broadcast_kv = dims;
    s.heads_q = s.heads_kv = 3;
    conform(s);
  }
}

// q, k, v and out as slices of one buffer, as a fused projection leaves them: rows interleaved, nothing shared.
TEST_P(Layouts, OneBufferForEverything) {
  const Dtype dtype = GetParam();
  if (output_dtype(dtype) != dtype) GTEST_SKIP() << "out has another dtype";
  constexpr int64_t kB = 2, kS = 37, kH = 3, kD = 16, kRow = 4 * kH * kD;
  for (const Target& target : kernels()) {
    Spec s = spec();
    s.batch = kB;
    s.seqlen_q = s.seqlen_kv = kS;
    s.heads_q = s.heads_kv = kH;
    s.head_dim = kD;
    const Case c(s);
    Tensor buffer = Tensor::output(dtype, {kB, kS, 4, kH, kD}, Layout::kContiguous);
    buffer.poison();
    for (int64_t i = 0; i < c.q.count(); ++i) {
      const int64_t token = i / (kH * kD), x = i % (kH * kD);
      buffer.set(token * kRow + x, c.q.get(i));
      buffer.set(token * kRow + kH * kD + x, c.k.get(i));
      buffer.set(token * kRow + 2 * kH * kD + x, c.v.get(i));
    }
    const auto slice = [&](int64_t which) {
      return MutableTensorView(buffer.at(which * kH * kD), dtype, {kB, kS, kH, kD}, {kS * kRow, kRow, kD, 1});
    };
    const Status status =
        try_attention(slice(0), slice(1), slice(2), slice(3), {.backend = target.backend, .kernel = target.kernel});
    if (status.code() == Code::kUnsupported) continue;
    ASSERT_TRUE(status.ok()) << status.message();
    const Result apart = run(c, target);
    for (int64_t i = 0; i < c.q.count(); ++i) {
      const int64_t token = i / (kH * kD), x = i % (kH * kD);
      ASSERT_EQ(buffer.get(token * kRow + x), c.q.get(i)) << "q was written to";
      ASSERT_EQ(buffer.get(token * kRow + kH * kD + x), c.k.get(i)) << "k was written to";
      ASSERT_EQ(buffer.get(token * kRow + 2 * kH * kD + x), c.v.get(i)) << "v was written to";
      ASSERT_EQ(buffer.get(token * kRow + 3 * kH * kD + x), apart.out.get(i)) << target.text();
    }
    EXPECT_TRUE(buffer.surroundings_intact());
  }
}

// The same memory as q, k and v at once.
TEST_P(Layouts, SelfAttentionOnOneTensor) {
  for (const Target& target : kernels()) {
    Spec s = spec();
    s.seqlen_q = s.seqlen_kv = 50;
    Case c(s);
    for (int64_t i = 0; i < c.q.count(); ++i) {
      c.k.set(i, c.q.get(i));
      c.v.set(i, c.q.get(i));
    }
    const Result apart = run(c, target);
    Result shared = apart;
    shared.out.poison();
    shared.status = try_attention(c.q.view(), c.q.view(), c.q.view(), shared.out.mutable_view(),
                                  {.backend = target.backend, .kernel = target.kernel});
    if (apart.refused()) continue;
    ASSERT_TRUE(shared.status.ok()) << shared.status.message();
    EXPECT_EQ(apart.out.element_bytes(), shared.out.element_bytes()) << target.text();
  }
}

TEST_P(Layouts, MasksWithStrides) {
  Spec s = spec();
  s.seqlen_q = 20;
  s.seqlen_kv = 40;
  s.lse = false;
  Case c(s);
  // Keys kept by a mask whose last dimension runs backwards with stride -2, and a bias read with stride 3.
  std::vector<uint8_t> keep(80);
  std::vector<float> shift(120);
  Random random(5);
  for (auto& x : keep) x = random.chance(0.6);
  for (auto& x : shift) x = static_cast<float>(random.normal());
  const TensorView mask(keep.data() + 78, Dtype::kUint8, {1, 1, 1, 40}, {0, 0, 0, -2});
  const TensorView bias(shift.data(), Dtype::kFp32, {1, 1, 1, 40}, {0, 0, 0, 3});
  Spec dense = s;
  dense.dense = true;
  dense.dense_dims = kHasK;
  dense.bias = BiasKind::kNormal;
  dense.bias_dims = kHasK;
  Case same(dense);
  same.dense.fill([&](int64_t j) { return keep[static_cast<size_t>(78 - 2 * j)]; });
  same.bias.fill([&](int64_t j) { return shift[static_cast<size_t>(3 * j)]; });
  for (int64_t i = 0; i < c.q.count(); ++i) same.q.set(i, c.q.get(i));
  for (int64_t i = 0; i < c.k.count(); ++i) same.k.set(i, c.k.get(i)), same.v.set(i, c.v.get(i));
  for (const Target& target : kernels()) {
    const Result expected = run(same, target);
    Result r = run(c, target);
    r.status =
        try_attention(c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(),
                      {.mask = Mask::dense(mask), .bias = bias, .backend = target.backend, .kernel = target.kernel});
    if (expected.refused()) continue;
    ASSERT_TRUE(r.status.ok()) << r.status.message();
    EXPECT_EQ(compare(same, r, target), "") << target.text();
  }
}

// Rows that start at addresses aligned to nothing but the element.
TEST_P(Layouts, EveryOffset) {
  const Dtype dtype = GetParam();
  for (int64_t offset = 0; offset < 9; ++offset) {
    for (const Target& target : kernels()) {
      Spec s = spec();
      s.batch = s.heads_q = s.heads_kv = 1;
      s.head_dim = 64;
      s.seqlen_q = 5;
      s.seqlen_kv = 19;
      const Case c(s);
      Tensor shifted(dtype, {offset + c.k.count()});
      for (int64_t i = 0; i < c.k.count(); ++i) shifted.set(offset + i, c.k.get(i));
      const TensorView k(shifted.at(0) + static_cast<size_t>(offset) * size_of(dtype), dtype, {1, 19, 1, 64});
      Result r = run(c, target);
      if (r.refused()) continue;
      const std::vector<std::byte> expected = r.out.element_bytes();
      r.out.poison();
      r.status = try_attention(c.q.view(), k, c.v.view(), r.out.mutable_view(),
                               {.backend = target.backend, .kernel = target.kernel});
      if (r.refused()) {  // copied 16 bytes at a time
        EXPECT_NE(static_cast<size_t>(offset) * size_of(dtype) % 16, 0u) << target.text();
        EXPECT_NE(r.status.message().find("not a multiple of 16 bytes"), std::string_view::npos) << r.status.message();
        continue;
      }
      ASSERT_TRUE(r.status.ok()) << r.status.message();
      EXPECT_EQ(r.out.element_bytes(), expected) << target.text() << " offset " << offset;
    }
  }
}

}  // namespace
}  // namespace attnmux::test
