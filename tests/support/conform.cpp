// SPDX-License-Identifier: Apache-2.0
#include "support/conform.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <sstream>

namespace attnmux::test {
namespace {

// ---- Counting: what ran, what was refused, and why ------------------------------------------------------------------

struct Count {
  int64_t ran = 0;
  std::map<std::string, int64_t> refused;  // by reason
};
std::map<std::string, Count>& counts() {
  static std::map<std::string, Count> all;
  return all;
}

class Summary : public ::testing::Environment {
 public:
  void TearDown() override {
    if (counts().empty()) return;
    std::printf("\nCases per backend and kernel\n");
    for (const auto& [name, count] : counts()) {
      int64_t refused = 0;
      for (const auto& reason : count.refused) refused += reason.second;
      std::printf("  %-46s %6lld ran %6lld refused\n", name.c_str(), static_cast<long long>(count.ran),
                  static_cast<long long>(refused));
      for (const auto& [reason, n] : count.refused)
        std::printf("      %6lld: %s\n", static_cast<long long>(n), reason.c_str());
    }
    std::fflush(stdout);
  }
};
[[maybe_unused]] ::testing::Environment* const summary = ::testing::AddGlobalTestEnvironment(new Summary);

constexpr std::byte kUntouched{0xA5};

// ---- The tolerance rule ---------------------------------------------------------------------------------------------

struct Errors {
  double max_absolute = 0, l2 = 0, max_reference = 0, l2_reference = 0;
  bool finite = true;
  double relative_l2() const { return l2_reference == 0 ? l2 : l2 / l2_reference; }
};

Errors errors(const std::vector<double>& got, const std::vector<double>& expected) {
  Errors e;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs(got[i] - expected[i]);
    e.finite = e.finite && std::isfinite(got[i]);
    e.max_absolute = std::max(e.max_absolute, difference);
    e.max_reference = std::max(e.max_reference, std::fabs(expected[i]));
    e.l2 += difference * difference;
    e.l2_reference += expected[i] * expected[i];
  }
  e.l2 = std::sqrt(e.l2);
  e.l2_reference = std::sqrt(e.l2_reference);
  return e;
}

// The library's LSE is (B, Hq, Sq) or (Hq, T); the reference's (tokens, heads).
std::vector<double> lse_by_token(const Case& c, const Tensor& lse) {
  const int64_t heads = c.spec.heads_q, rows = lse.shape().back();
  std::vector<double> by_token(static_cast<size_t>(lse.count()));
  for (int64_t index = 0; index < lse.count(); ++index) {
    const int64_t row = index % rows, head = index / rows % heads, batch = index / rows / heads;
    by_token[static_cast<size_t>((batch * rows + row) * heads + head)] = lse.get(index);
  }
  return by_token;
}

// The rule compares two largest errors, which says much where many rounding errors make each. Where an output has few
// (one key kept by dropout has nearly all the weight, say, or there are six outputs in all), the textbook loop's may
// happen to be next to nothing. No order of summation can promise less than the roundings that all goes through at full
// size: a score by the last addition of q.k, the scale, the bias and the subtraction of the maximum, each of which
// moves its weight by up to u·|score| of itself; an output by the exponential, the last addition of P·V, the reciprocal
// of the sum and the product with it, each by up to u of itself. 16-bit types round P more coarsely.
double least_roundings(const Case& c) {
  const bool wide = c.spec.dtype == Dtype::kFp32 || c.spec.dtype == Dtype::kFp64;
  return wide ? 4 * rounding_of(c.spec.dtype) * (c.exact().largest_score + 1) : 0;
}

std::string compare_out(const Case& c, const std::vector<double>& got) {
  const std::vector<double>& exact = c.exact().out;
  std::vector<double> finite_got, finite_exact, finite_plain;
  for (size_t i = 0; i < exact.size(); ++i) {
    if (std::isnan(exact[i]) != std::isnan(got[i])) {
      return "out[" + std::to_string(i) + "] is " + std::to_string(got[i]) + ", expected " + std::to_string(exact[i]);
    }
    if (std::isnan(exact[i])) continue;
    finite_got.push_back(got[i]);
    finite_exact.push_back(exact[i]);
    finite_plain.push_back(c.plain().out[i]);
  }
  const Errors mine = errors(finite_got, finite_exact), plain = errors(finite_plain, finite_exact);
  const double floor = least_roundings(c);
  const Dtype dtype = output_dtype(c.spec.dtype);
  // P of the textbook loop is rounded as coarsely as that of a kernel, and to the same values (docs/numerics.md).
  const double times = c.spec.dtype == Dtype::kE4m3 ? 1.1 : 2;
  const double bound =
      std::max(2 * plain.max_absolute + 2 * ulp_at(dtype, mine.max_reference), floor * mine.max_reference);
  const double bound_l2 = std::max(times * plain.relative_l2() + rounding_of(dtype), floor);
  std::ostringstream text;
  if (!mine.finite) text << "out has an infinity; ";
  if (!(mine.max_absolute <= bound)) {
    text << "max error of out is " << mine.max_absolute << ", accepted " << bound << " (plain " << plain.max_absolute
         << "); ";
  }
  if (!(mine.relative_l2() <= bound_l2)) {
    text << "relative L2 error of out is " << mine.relative_l2() << ", accepted " << bound_l2 << "; ";
  }
  return text.str();
}

// As for out, in fp32, and what a sum of P rounded to 16 bits costs where the kernel's class permits that. Scores are
// sums of terms of size 1 even where they cancel, so an ulp is never taken below 1's.
std::string compare_lse(const Case& c, const std::vector<double>& got, double allowance) {
  const std::vector<double>&exact = c.exact().lse, &plain = c.plain().lse;
  double error = 0, plain_error = 0, largest = 1;
  for (size_t i = 0; i < exact.size(); ++i) {
    if (!std::isfinite(exact[i]) || !std::isfinite(got[i])) {
      const bool same = std::isnan(exact[i]) ? !std::isfinite(got[i]) : got[i] == exact[i];
      if (!same)
        return "lse[" + std::to_string(i) + "] is " + std::to_string(got[i]) + ", expected " + std::to_string(exact[i]);
      continue;
    }
    error = std::max(error, std::fabs(got[i] - exact[i]));
    plain_error = std::max(plain_error, std::fabs(plain[i] - exact[i]));
    largest = std::max(largest, std::fabs(exact[i]));
  }
  const double bound = 2 * plain_error + 2 * ulp_at(Dtype::kFp32, largest) + allowance;
  if (error <= bound) return "";
  std::ostringstream text;
  text << "max error of lse is " << error << ", accepted " << bound << "; ";
  return text.str();
}

AttentionOptions options_for(const Case& c, const Target& target, Tensor* lse) {
  AttentionOptions options = c.options(lse);
  options.backend = target.backend;
  options.kernel = target.kernel;
  return options;
}

bool same_elements(const Result& a, const Result& b) {
  return a.out.element_bytes() == b.out.element_bytes() && a.lse.element_bytes() == b.lse.element_bytes();
}

// Causal and window masks without an alignment are legal where cu_seqlens_q and cu_seqlens_kv have equal values.
// Lengths in device memory are never read, so there they must be one tensor.
bool needs_values_on_host(const Spec& s) {
  const bool aligned = s.causal_align != Align::kNone || s.window_align != Align::kNone;
  const bool windowed = s.window && (s.window_left >= 0 || s.window_right >= 0);
  return s.packed() && (s.causal || windowed) && !aligned && !s.shared_cu_seqlens;
}

void check_refusal(const Case& c, const Target& target, const Result& r) {
  const std::string_view message = r.status.message();
  EXPECT_TRUE(r.refused()) << "code " << static_cast<int>(r.status.code()) << ": " << message;
  EXPECT_TRUE(message.starts_with("[attention] ")) << message;
  EXPECT_GT(message.size(), 40u) << "a refusal says why: " << message;
  EXPECT_EQ(r.out.element_bytes(), c.make_out().element_bytes()) << "a refused call wrote to out";
  counts()[target.text()].refused[std::string(message)]++;
}

}  // namespace

Result run(const Case& c, const Target& target, const ExecContext& exec) {
  Result r{{}, c.make_out(), c.make_lse()};
  r.status =
      try_attention(c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(), options_for(c, target, &r.lse), exec);
  return r;
}

Result run_planned(const Case& c, const Target& target, const ExecContext& exec) {
  Result r{{}, c.make_out(), c.make_lse()};
  const auto pointerless = [](attnmux_tensor t) {
    t.data = nullptr;
    return t;
  };
  const AttentionOptions options = options_for(c, target, &r.lse);
  Plan plan;
  r.status = try_plan(plan, TensorView(pointerless(c.q.view().c())), TensorView(pointerless(c.k.view().c())),
                      TensorView(pointerless(c.v.view().c())), MutableTensorView(pointerless(r.out.mutable_view().c())),
                      options, exec);
  if (!r.status) return r;
  EXPECT_EQ(plan.kernel(), target.kernel);
  EXPECT_EQ(plan.backend(), target.backend);
  // Exactly what the plan asks for, between bytes that must stay as they are.
  constexpr size_t kAround = 128;
  const size_t bytes = plan.workspace_bytes();
  std::vector<std::byte> memory(bytes + 2 * kAround, kUntouched);
  ExecContext with_workspace = exec;
  with_workspace.workspace = std::span(memory.data() + kAround, bytes);
  r.status = plan.try_run(c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(), options, with_workspace);
  const auto untouched = [](std::byte b) { return b == kUntouched; };
  EXPECT_TRUE(std::all_of(memory.begin(), memory.begin() + kAround, untouched)) << "wrote before the workspace";
  EXPECT_TRUE(std::all_of(memory.end() - kAround, memory.end(), untouched)) << "wrote behind the workspace";
  return r;
}

std::string compare(const Case& c, const Result& r, const Target& target) {
  std::string wrong = compare_out(c, r.out.values());
  double allowance = lse_allowance(target, c.spec.dtype);
  // Tensor cores add up 8-bit products with about 13 bits, 32 at a time: each addition moves a score by up to 2^-13 of
  // what it is at the time, which may be twice what it becomes.
  if (c.spec.dtype == Dtype::kE4m3 && allowance > 0) {
    const int64_t additions = c.spec.head_dim / 32 + 1;
    allowance += std::ldexp(1.0, -12) * static_cast<double>(additions) * (c.exact().largest_score + 1);
  }
  if (r.lse.given()) wrong += compare_lse(c, lse_by_token(c, r.lse), allowance);
  return wrong;
}

double lse_allowance(const Target& target, Dtype dtype) {
  if (target.is_exact(dtype)) return 0;
  return dtype == Dtype::kE4m3 ? 1.8e-3 : 3e-6;
}

void check(const Case& c, const Target& target) {
  // A broken kernel fails thousands of cases; the first few tell enough.
  if (::testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count() > 40) return;
  SCOPED_TRACE(target.text() + ": " + c.spec.text());
  std::vector<std::vector<std::byte>> before;
  for (const Tensor* input : c.inputs()) before.push_back(input->bytes());

  const Result direct = run(c, target);
  const uint64_t unclaimed = c.spec.features() & ~target.features;
  if (target.on_cuda && needs_values_on_host(c.spec)) {
    EXPECT_EQ(direct.status.code(), Code::kInvalidArgument) << direct.status.message();
    EXPECT_NE(direct.status.message().find("needs an alignment"), std::string_view::npos) << direct.status.message();
    return;
  }
  if (!direct.status) {
    check_refusal(c, target, direct);
    return;
  }
  counts()[target.text()].ran++;
  EXPECT_TRUE(target.takes(c.spec.dtype)) << "ran a dtype that the kernel does not claim";
  EXPECT_EQ(unclaimed, 0u) << "ran features that the kernel does not claim: bits " << unclaimed;
  if (const std::string wrong = compare(c, direct, target); !wrong.empty()) ADD_FAILURE() << wrong;
  EXPECT_TRUE(direct.out.surroundings_intact()) << "wrote around out";
  EXPECT_TRUE(!direct.lse.given() || direct.lse.surroundings_intact()) << "wrote around lse";

  const int threads = 1 + static_cast<int>(c.spec.seed % 3);
  const Result planned = run_planned(c, target, {.num_threads = threads});
  EXPECT_TRUE(planned.status.ok()) << "planned: " << planned.status.message();
  if (planned.status) {
    EXPECT_TRUE(same_elements(direct, planned)) << "planned with " << threads << " threads differs";
  }

  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_EQ(c.inputs()[i]->bytes(), before[i]) << "input " << i << " was written to";
}

void conform(const Case& c) {
  if (intensity() == Intensity::kFull) {
    for (const Target& t : targets()) check(c, t);
    return;
  }
  static size_t turn = 0;
  ++turn;
  for (const Target& kernel : kernels()) {
    // One that compiles for every shape sees every third case: a compilation takes longer than all else here.
    if (kernel.one_shape && turn % 3 != 0) continue;
    std::vector<const Target*> same;
    for (const Target& t : targets()) {
      if (t.kernel == kernel.kernel) same.push_back(&t);
    }
    check(c, *same[turn % same.size()]);
  }
}

std::vector<Dtype> tested_dtypes() {
  std::vector<Dtype> dtypes;
  for (const Dtype dtype : {Dtype::kFp32, Dtype::kFp16, Dtype::kBf16, Dtype::kFp64, Dtype::kE4m3}) {
    if (std::any_of(kernels().begin(), kernels().end(), [&](const Target& t) { return t.takes(dtype); }))
      dtypes.push_back(dtype);
  }
  return dtypes;
}

}  // namespace attnmux::test
