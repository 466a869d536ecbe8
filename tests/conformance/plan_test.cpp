// SPDX-License-Identifier: Apache-2.0
// Plans: one choice, run with every smaller shape, in the workspace that was asked for.
#include <algorithm>

#include "support/by_dtype.h"
#include "support/pools.h"

namespace attnmux::test {
namespace {

class Plans : public ByDtype {
 protected:
  static AttentionOptions with(const Case& c, const Target& t, Tensor* lse = nullptr) {
    AttentionOptions o = c.options(lse);
    o.backend = t.backend;
    o.kernel = t.kernel;
    return o;
  }
  static Status make(Plan& plan, const Case& c, const Target& t, const ExecContext& exec = {}) {
    Tensor out = c.make_out(), lse = c.make_lse();
    return try_plan(plan, c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), with(c, t, &lse), exec);
  }
};
ATTNMUX_TEST_SUITE_BY_DTYPE(Plans);

// One plan follows a growing cache, a shrinking batch, shorter prompts: the bits of a call without a plan.
TEST_P(Plans, ServeEverySmallerShape) {
  Spec largest = spec();
  largest.batch = 3;
  largest.heads_q = 4;
  largest.seqlen_q = 70;
  largest.seqlen_kv = 150;
  largest.causal = true;
  largest.causal_align = Align::kBottomRight;
  const Case planned(largest);
  for (const Target& target : kernels()) {
    Plan plan;
    const Status status = make(plan, planned, target, {.num_threads = 2});
    if (status.code() == Code::kUnsupported) continue;
    ASSERT_TRUE(status.ok()) << status.message();
    std::vector<std::byte> workspace(plan.workspace_bytes());
    for (const auto& [b, q, kv] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{{3, 70, 150},
                                                                                     {1, 70, 150},
                                                                                     {3, 1, 150},
                                                                                     {3, 70, 1},
                                                                                     {2, 33, 149},
                                                                                     {1, 1, 1},
                                                                                     {3, 0, 150},
                                                                                     {3, 70, 0},
                                                                                     {0, 70, 150}}) {
      Spec s = largest;
      s.batch = b;
      s.seqlen_q = q;
      s.seqlen_kv = kv;
      const Case c(s);
      SCOPED_TRACE(target.text() + ": " + s.text());
      const Result direct = run(c, target);
      Result r{{}, c.make_out(), c.make_lse()};
      r.status = plan.try_run(c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(), with(c, target, &r.lse),
                              {.workspace = std::span(workspace)});
      if (target.one_shape && !(b == 3 && q == 70 && kv == 150)) {
        EXPECT_EQ(r.status.code(), Code::kInvalidArgument) << r.status.message();
        EXPECT_NE(r.status.message().find("this kernel serves one shape"), std::string_view::npos)
            << r.status.message();
        EXPECT_EQ(r.out.element_bytes(), c.make_out().element_bytes()) << "a refused run wrote to out";
        continue;
      }
      ASSERT_TRUE(r.status.ok()) << r.status.message();
      EXPECT_EQ(compare(c, r, target), "");
      EXPECT_EQ(r.out.element_bytes(), direct.out.element_bytes());
      EXPECT_EQ(r.lse.element_bytes(), direct.lse.element_bytes());
    }
  }
}

TEST_P(Plans, RefuseLargerAndOtherProblems) {
  const Spec planned = spec();
  for (const Target& target : kernels()) {
    Plan plan;
    if (const Status status = make(plan, Case(planned), target); status.code() == Code::kUnsupported) continue;
    const auto refused = [&](const std::string& name, const std::string& value, auto change) {
      Spec s = planned;
      change(s);
      const Case c(s);
      Tensor out = c.make_out(), lse = c.make_lse();
      const Status status = plan.try_run(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), with(c, target, &lse));
      EXPECT_EQ(status.code(), Code::kInvalidArgument) << name;
      EXPECT_NE(status.message().find(name), std::string_view::npos) << status.message();
      EXPECT_NE(status.message().find(value), std::string_view::npos) << status.message();
      EXPECT_EQ(out.element_bytes(), c.make_out().element_bytes()) << "a refused run wrote to out";
    };
    refused("batch", "3", [](Spec& s) { s.batch = 3; });
    refused("seqlen_q", "34", [](Spec& s) { s.seqlen_q = 34; });
    refused("seqlen_kv", "66", [](Spec& s) { s.seqlen_kv = 66; });
    refused("head", "4", [](Spec& s) { s.heads_q = s.heads_kv = 4; });
    refused("head_dim", "40", [](Spec& s) { s.head_dim = 40; });
    refused("softcap", "softcap", [](Spec& s) { s.softcap = 1; });
    refused("lse", "lse", [](Spec& s) { s.lse = false; });
    refused("dtype", name_of(planned.dtype),
            [](Spec& s) { s.dtype = s.dtype == Dtype::kFp32 ? Dtype::kBf16 : Dtype::kFp32; });
  }
}

TEST_P(Plans, ATooSmallWorkspaceIsAnErrorWithBothNumbers) {
  Spec s = spec();
  s.seqlen_q = s.seqlen_kv = 100;
  const Case c(s);
  int64_t tried = 0;
  for (const Target& target : kernels()) {
    Plan plan;
    if (const Status status = make(plan, c, target); !status || plan.workspace_bytes() == 0) continue;
    ++tried;
    for (const size_t bytes : {size_t{0}, size_t{1}, plan.workspace_bytes() - 1}) {
      std::vector<std::byte> workspace(bytes + 1);
      const ExecContext exec{.workspace = std::span(workspace.data(), bytes)};
      Tensor out = c.make_out(), lse = c.make_lse();
      for (const Status& status :
           {plan.try_run(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), with(c, target, &lse), exec),
            try_attention(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), with(c, target, &lse), exec)}) {
        EXPECT_EQ(status.code(), Code::kInvalidArgument) << target.text();
        EXPECT_NE(status.message().find("workspace has " + std::to_string(bytes)), std::string_view::npos)
            << status.message();
        EXPECT_NE(status.message().find("needs " + std::to_string(plan.workspace_bytes())), std::string_view::npos)
            << status.message();
      }
      EXPECT_EQ(out.element_bytes(), c.make_out().element_bytes()) << "a refused call wrote to out";
    }
  }
  // The kernels on the CPU do; those on a GPU keep everything on the chip.
  const bool on_cpu = std::any_of(kernels().begin(), kernels().end(),
                                  [](const Target& t) { return !t.on_cuda && t.takes(GetParam()); });
  EXPECT_TRUE(tried > 0 || !on_cpu || GetParam() == Dtype::kFp64) << "no kernel needs a workspace";
}

// A workspace needs no alignment.
TEST_P(Plans, AWorkspaceMayStartAnywhere) {
  const Case c(spec());
  for (const Target& target : kernels()) {
    Plan plan;
    if (!make(plan, c, target)) continue;
    const Result expected = run(c, target);
    std::vector<std::byte> memory(plan.workspace_bytes() + 64);
    for (const size_t offset : {0, 1, 7, 63}) {
      Result r{{}, c.make_out(), c.make_lse()};
      r.status = plan.try_run(c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(), with(c, target, &r.lse),
                              {.workspace = std::span(memory.data() + offset, plan.workspace_bytes())});
      ASSERT_TRUE(r.status.ok()) << r.status.message();
      EXPECT_EQ(r.out.element_bytes(), expected.out.element_bytes()) << target.text() << " offset " << offset;
    }
  }
}

// What a workspace holds before a run does not matter.
TEST_P(Plans, ADirtyWorkspaceIsAsGoodAsANewOne) {
  const Case c(spec());
  for (const Target& target : kernels()) {
    Plan plan;
    if (!make(plan, c, target)) continue;
    const Result expected = run(c, target);
    for (const int byte : {0x00, 0xFF, 0x7F}) {
      std::vector<std::byte> workspace(plan.workspace_bytes(), std::byte(byte));
      Result r{{}, c.make_out(), c.make_lse()};
      r.status = plan.try_run(c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(), with(c, target, &r.lse),
                              {.workspace = std::span(workspace)});
      ASSERT_TRUE(r.status.ok()) << r.status.message();
      EXPECT_EQ(r.out.element_bytes(), expected.out.element_bytes()) << target.text();
    }
  }
}

// Other values of scale, softcap, window, lengths: a plan holds the choice, the call holds the values.
TEST_P(Plans, ValuesComeFromTheCall) {
  Spec planned = spec();
  planned.scale = 0.5;
  planned.softcap = 2;
  planned.window = true;
  planned.window_left = 9;
  planned.window_right = 3;
  planned.window_align = Align::kTopLeft;
  planned.key_lengths = {65, 65};
  for (const Target& target : kernels()) {
    Plan plan;
    if (!make(plan, Case(planned), target)) continue;
    Spec s = planned;
    s.scale = -1.5;
    s.softcap = 7;
    s.window_left = 30;
    s.window_right = 0;
    s.window_align = Align::kBottomRight;
    s.key_lengths = {0, 50};
    const Case c(s);
    Result r{{}, c.make_out(), c.make_lse()};
    r.status = plan.try_run(c.q.view(), c.k.view(), c.v.view(), r.out.mutable_view(), with(c, target, &r.lse));
    ASSERT_TRUE(r.status.ok()) << r.status.message();
    EXPECT_EQ(compare(c, r, target), "") << target.text();
  }
}

// check and workspace_bytes never get in the way of a smaller shape; a kernel that is tied to one shape says so.
TEST_P(Plans, CheckAndWorkspaceAreMonotone) {
  Random random(77);
  constexpr int64_t kLengths[] = {0, 1, 2, 15, 64, 65, 127, 500, 4096, 4097, 100'000};
  for (int round = 0, n = scaled(20, 300, 3000); round < n; ++round) {
    Spec s = random_spec(random);
    s.dtype = GetParam();
    if (s.packed()) continue;
    s.key_lengths.clear();
    s.padding = Padding::kNone;
    s.dense = false;
    s.bias = BiasKind::kNone;
    if ((s.causal || s.window) && s.causal_align == Align::kNone && s.window_align == Align::kNone) {
      (s.causal ? s.causal_align : s.window_align) = Align::kTopLeft;
    }
    const int64_t big[] = {random.between(1, 40), random.pick(kLengths), random.pick(kLengths)};
    const int64_t small[] = {random.between(0, big[0]), random.between(0, big[1]), random.between(0, big[2])};
    const int threads = static_cast<int>(random.between(1, 8));
    SerialPool pool;
    const ExecContext exec{.executor = Executor::from(pool, threads)};
    const auto plan_of = [&](const int64_t(&size)[3], const Target& target, Plan& plan) {
      const auto view = [&](int64_t length, int64_t heads, int64_t dim) {
        return MutableTensorView(nullptr, s.dtype, {size[0], length, heads, dim});
      };
      AttentionOptions o;
      if (s.causal) o.mask = o.mask & Mask::causal(s.causal_align);
      if (s.window) o.mask = o.mask & Mask::window(s.window_left, s.window_right, s.window_align);
      o.softcap = s.softcap;
      if (s.lse) o.lse = MutableTensorView(nullptr, Dtype::kFp32, {size[0], s.heads_q, size[1]});
      o.backend = target.backend;
      o.kernel = target.kernel;
      return try_plan(plan, view(size[1], s.heads_q, s.head_dim), view(size[2], s.heads_kv, s.head_dim),
                      view(size[2], s.heads_kv, s.dim_v()), view(size[1], s.heads_q, s.dim_v()), o, exec);
    };
    for (const Target& target : kernels()) {
      if (target.one_shape) continue;
      Plan large, little;
      const Status accepts_large = plan_of(big, target, large), accepts_little = plan_of(small, target, little);
      SCOPED_TRACE(target.text() + ": " + s.text() + " threads " + std::to_string(threads));
      const auto size_text = [](const int64_t(&x)[3]) {
        return std::to_string(x[0]) + "," + std::to_string(x[1]) + "," + std::to_string(x[2]);
      };
      EXPECT_TRUE(!accepts_large || accepts_little)
          << "accepts " << size_text(big) << " but not " << size_text(small) << ": " << accepts_little.message();
      if (accepts_large && accepts_little) {
        EXPECT_LE(little.workspace_bytes(), large.workspace_bytes())
            << size_text(small) << " against " << size_text(big);
      }
    }
  }
}

TEST(Plan, IsAValue) {
  Plan empty;
  EXPECT_EQ(empty.workspace_bytes(), 0u);
  EXPECT_EQ(empty.kernel(), "");
  EXPECT_FALSE(empty.backend());
  const Case c{Spec{}};
  Tensor out = c.make_out();
  const Status status = empty.try_run(c.q.view(), c.k.view(), c.v.view(), out.mutable_view());
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_TRUE(status.message().starts_with("[attention] plan is empty")) << status.message();
  Plan made = plan(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), {.backend = "_native_math"});
  Plan moved = std::move(made);
  EXPECT_EQ(moved.backend(), Backend("_native_math"));
  moved.run(c.q.view(), c.k.view(), c.v.view(), out.mutable_view());
  EXPECT_EQ(compare(c, {{}, out, {}}, kernel_named("cpu_math")), "");
}

// A plan that fails leaves the old one as it was.
TEST(Plan, AFailedPlanChangesNothing) {
  const Case c{Spec{}};
  Tensor out = c.make_out();
  Plan kept = plan(c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), {.backend = "_native_math"});
  EXPECT_FALSE(try_plan(kept, c.q.view(), c.k.view(), c.v.view(), out.mutable_view(), {.backend = "_flash_3"}));
  EXPECT_EQ(kept.backend(), Backend("_native_math"));
}

}  // namespace
}  // namespace attnmux::test
