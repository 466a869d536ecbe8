// SPDX-License-Identifier: Apache-2.0
// Who guards the guards: the library's oracle against the tests' own reference, and both against PyTorch.
#include <gtest/gtest.h>
#include <io/safetensors.h>

#include <cmath>

#include "support/conform.h"

namespace attnmux::test {
namespace {

struct OracleOutput {
  std::vector<double> out, lse;  // lse as (tokens, heads)
};

OracleOutput oracle(const Case& c, int32_t kind) {
  Tensor lse = c.make_lse();
  const attnmux_options options = c.options(&lse).c();
  OracleOutput o;
  o.out.assign(c.exact().out.size() + 1, NAN);  // never without memory
  std::vector<double> raw(c.exact().lse.size() + 1, NAN);
  Status status;
  attnmux_oracle(kind, &c.q.view().c(), &c.k.view().c(), &c.v.view().c(), &options, o.out.data(), raw.data(),
                 status.c_error());
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(std::isnan(o.out.back()) && std::isnan(raw.back())) << "wrote behind the output";
  o.out.pop_back();
  raw.pop_back();
  // (B, H, S) and (H, T) alike: heads before rows.
  o.lse.assign(raw.size(), NAN);
  const size_t heads = static_cast<size_t>(c.spec.heads_q);
  const size_t batches = c.spec.packed() ? 1 : static_cast<size_t>(c.spec.batch);
  const size_t rows = heads * batches == 0 ? 0 : raw.size() / heads / batches;
  for (size_t i = 0; i < raw.size(); ++i) {
    o.lse[(i / rows / heads * rows + i % rows) * heads + i / rows % heads] = raw[i];
  }
  return o;
}

void expect_close(const std::vector<double>& got, const std::vector<double>& expected, double tolerance,
                  const char* what) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(expected[i]) && std::isnan(got[i])) continue;
    if (std::isinf(expected[i]) && got[i] == expected[i]) continue;
    ASSERT_NEAR(got[i], expected[i], tolerance * std::max(1.0, std::fabs(expected[i]))) << what << "[" << i << "]";
  }
}

TEST(Oracle, Fp64IsTheTestsReference) {
  Random random(11);
  for (int round = 0, n = scaled(4, 300, 3000); round < n; ++round) {
    const Case c(random_spec(random));
    SCOPED_TRACE(c.spec.text());
    const OracleOutput o = oracle(c, ATTNMUX_ORACLE_FP64);
    // Both compute in double or better; huge logits magnify the rounding of a sum's order.
    const double tolerance = c.spec.values == Values::kHuge ? 1e-9 : 1e-11;
    expect_close(o.out, c.exact().out, tolerance, "out");
    if (c.spec.lse) expect_close(o.lse, c.exact().lse, tolerance, "lse");
    if (::testing::Test::HasFailure()) break;
  }
}

// Two implementations of the textbook loop may differ in the order of a sum, not in what they round.
TEST(Oracle, PlainIsTheTestsPlainLoop) {
  Random random(12);
  for (int round = 0, n = scaled(4, 300, 3000); round < n; ++round) {
    Spec s = random_spec(random);
    s.values = Values::kNormal;
    if (s.bias == BiasKind::kRowsLowest) s.bias = BiasKind::kNormal;
    const Case c(s);
    SCOPED_TRACE(c.spec.text());
    const OracleOutput o = oracle(c, ATTNMUX_ORACLE_PLAIN);
    double largest = 1;
    for (const double x : c.exact().out) largest = std::max(largest, std::fabs(x));
    expect_close(o.out, c.plain().out,
                 s.dtype == Dtype::kFp64   ? 1e-12
                 : s.dtype == Dtype::kFp32 ? 3e-5
                                           : 8 * rounding_of(s.dtype),
                 "out");
    if (::testing::Test::HasFailure()) break;
  }
}

TEST(Oracle, RefusesWhatTheCallRefuses) {
  const Case c{Spec{}};
  std::vector<double> out(c.exact().out.size());
  Status status;
  EXPECT_EQ(attnmux_oracle(7, &c.q.view().c(), &c.k.view().c(), &c.v.view().c(), nullptr, out.data(), nullptr,
                           status.c_error()),
            ATTNMUX_INVALID_ARGUMENT);
  EXPECT_NE(status.message().find("kind is 7"), std::string_view::npos) << status.message();
  EXPECT_EQ(
      attnmux_oracle(0, &c.q.view().c(), &c.k.view().c(), &c.v.view().c(), nullptr, nullptr, nullptr, status.c_error()),
      ATTNMUX_INVALID_ARGUMENT);
  EXPECT_EQ(
      attnmux_oracle(0, nullptr, &c.k.view().c(), &c.v.view().c(), nullptr, out.data(), nullptr, status.c_error()),
      ATTNMUX_INVALID_ARGUMENT);
  EXPECT_TRUE(status.message().starts_with("[attention] q is a null pointer")) << status.message();
}

// ---- PyTorch's answers, from tests/golden/make_pytorch_goldens.py ---------------------------------------------------

struct Golden {
  Case c;
  std::vector<double> out, lse;
};

double golden_value(const io::NamedTensor& t, size_t index) {
  return load(static_cast<Dtype>(t.dtype), t.data + index * size_of(static_cast<Dtype>(t.dtype)));
}

std::vector<double> golden_values(const io::NamedTensor& t) {
  std::vector<double> all(static_cast<size_t>(t.num_elements()));
  for (size_t i = 0; i < all.size(); ++i) all[i] = golden_value(t, i);
  return all;
}

void copy(const io::NamedTensor& from, Tensor& to) {
  ASSERT_EQ(from.shape, to.shape()) << from.name;
  to.fill([&](int64_t i) { return golden_value(from, static_cast<size_t>(i)); });
}

std::string text_of(const std::map<std::string, std::string>& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : found->second;
}

// The file's metadata says for each case which options it has: "name.option" = value.
Golden read_golden(const io::TensorFile& file, const std::string& name) {
  const auto& meta = file.metadata();
  const auto option = [&](const char* key) { return text_of(meta, name + "." + key); };
  const auto number = [&](const char* key) { return std::strtod(option(key).c_str(), nullptr); };
  const io::NamedTensor &q = file.at(name + ".q"), &k = file.at(name + ".k"), &v = file.at(name + ".v");
  Spec s;
  s.dtype = static_cast<Dtype>(q.dtype);
  s.batch = q.shape[0];
  s.seqlen_q = q.shape[1];
  s.heads_q = q.shape[2];
  s.head_dim = q.shape[3];
  s.seqlen_kv = k.shape[1];
  s.heads_kv = k.shape[2];
  s.head_dim_v = v.shape[3];
  s.lse = true;
  if (!option("causal").empty()) {
    s.causal = true;
    s.causal_align = option("causal") == "bottom_right" ? Align::kBottomRight : Align::kTopLeft;
  }
  if (!option("window_left").empty()) {
    s.window = true;
    s.window_left = static_cast<int64_t>(number("window_left"));
    s.window_right = static_cast<int64_t>(number("window_right"));
    s.window_align = option("window") == "bottom_right" ? Align::kBottomRight : Align::kTopLeft;
  }
  if (!option("scale").empty()) s.scale = number("scale");
  if (!option("softcap").empty()) s.softcap = number("softcap");
  const auto dims = [](const io::NamedTensor& t) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) bits |= t.shape[i] > 1 ? 1u << i : 0;
    return bits;
  };
  const io::NamedTensor* dense = file.find(name + ".dense");
  const io::NamedTensor* bias = file.find(name + ".bias");
  const io::NamedTensor* padding = file.find(name + ".padding");
  const io::NamedTensor* lengths = file.find(name + ".lengths");
  if (dense != nullptr) s.dense = true, s.dense_dims = dims(*dense);
  if (bias != nullptr)
    s.bias = BiasKind::kNormal, s.bias_dims = dims(*bias), s.bias_dtype = static_cast<Dtype>(bias->dtype);
  if (padding != nullptr) s.padding = Padding::kAllTrue;
  if (lengths != nullptr) {
    for (size_t b = 0; b < golden_values(*lengths).size(); ++b)
      s.key_lengths.push_back(static_cast<int32_t>(golden_value(*lengths, b)));
  }
  Golden g{Case(s), golden_values(file.at(name + ".out")), {}};
  copy(q, g.c.q);
  copy(k, g.c.k);
  copy(v, g.c.v);
  if (dense != nullptr) copy(*dense, g.c.dense);
  if (bias != nullptr) copy(*bias, g.c.bias);
  if (padding != nullptr) copy(*padding, g.c.key_padding);
  // (B, H, S) to (tokens, heads).
  const std::vector<double> lse = golden_values(file.at(name + ".lse"));
  g.lse.resize(lse.size());
  const size_t heads = static_cast<size_t>(s.heads_q), rows = static_cast<size_t>(s.seqlen_q);
  for (size_t i = 0; i < lse.size(); ++i)
    g.lse[(i / rows / heads * rows + i % rows) * heads + i / rows % heads] = lse[i];
  return g;
}

class PytorchGoldens : public ::testing::Test {
 protected:
  const io::TensorFile file_ = io::load_safetensors(source_dir() + "/tests/golden/pytorch.safetensors");
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const io::NamedTensor& t : file_.tensors()) {
      if (t.name.ends_with(".out")) all.push_back(t.name.substr(0, t.name.size() - 4));
    }
    return all;
  }
};

TEST_F(PytorchGoldens, AreTheTestsReferenceAndTheOracle) {
  ASSERT_GE(names().size(), 20u);
  for (const std::string& name : names()) {
    SCOPED_TRACE(name);
    const Golden g = read_golden(file_, name);
    expect_close(g.c.exact().out, g.out, 1e-12, "out");
    expect_close(g.c.exact().lse, g.lse, 1e-12, "lse");
    const OracleOutput o = oracle(g.c, ATTNMUX_ORACLE_FP64);
    expect_close(o.out, g.out, 1e-12, "out");
    expect_close(o.lse, g.lse, 1e-12, "lse");
  }
}

TEST_F(PytorchGoldens, OnEveryKernel) {
  for (const std::string& name : names()) {
    SCOPED_TRACE(name);
    conform(read_golden(file_, name).c);
  }
}

}  // namespace
}  // namespace attnmux::test
