// SPDX-License-Identifier: Apache-2.0
// Scopes: of this thread, nested, restored by unwinding, capturable.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace attnmux {
namespace {

std::string resolved(const AttentionLayer* layer = nullptr) {
  const MutableTensorView t(nullptr, Dtype::kFp32, {1, 4, 1, 8});
  return std::string(plan(t, t, t, t, {.layer = layer}).backend().name());
}

std::string resolved_role(std::string_view role) {
  const AttentionLayer layer{role};
  return resolved(&layer);
}

TEST(Scopes, NestAndRestore) {
  EXPECT_EQ(resolved(), "native");
  {
    const AttentionBackendScope outer("flash");
    EXPECT_EQ(resolved(), "flash");
    {
      const AttentionBackendScope inner("_native_math");
      EXPECT_EQ(resolved(), "_native_math");
    }
    EXPECT_EQ(resolved(), "flash");
  }
  EXPECT_EQ(resolved(), "native");
}

TEST(Scopes, UnwindingRestores) {
  try {
    const AttentionBackendScope scope("flash");
    throw std::runtime_error("out of here");
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "out of here");
  }
  EXPECT_EQ(resolved(), "native");
}

TEST(Scopes, OfNothingChangeNothing) {
  const AttentionBackendScope outer("flash");
  const AttentionBackendScope conditional(Backend{});
  EXPECT_EQ(resolved(), "flash");
}

TEST(Scopes, ByRole) {
  const AttentionBackendScope every("xformers");
  const AttentionBackendScope dit("flash", {.role = "dit"});
  const AttentionBackendScope joint("_native_math", {.role = "dit.joint"});
  EXPECT_EQ(resolved_role("dit.joint"), "_native_math");
  EXPECT_EQ(resolved_role("dit.joint.a"), "_native_math");
  EXPECT_EQ(resolved_role("dit"), "flash");
  EXPECT_EQ(resolved_role("dit.self"), "flash");
  EXPECT_EQ(resolved_role("dit2"), "xformers");
  EXPECT_EQ(resolved_role("self"), "xformers");
  EXPECT_EQ(resolved(), "xformers");
}

// The innermost that matches wins, also over a more specific one outside.
TEST(Scopes, TheInnermostMatchWins) {
  const AttentionBackendScope specific("_native_math", {.role = "dit.joint"});
  const AttentionBackendScope general("flash");
  EXPECT_EQ(resolved_role("dit.joint"), "flash");
}

TEST(Scopes, AreOfOneThread) {
  const AttentionBackendScope scope("flash");
  std::string elsewhere;
  std::thread([&] { elsewhere = resolved(); }).join();
  EXPECT_EQ(elsewhere, "native");
}

TEST(Scopes, OfABackendThatCannotRunHereFail) {
  EXPECT_THROW(const AttentionBackendScope loud("_flash_3"), Error);
  Status status;
  const AttentionBackendScope quiet("_flash_3", {}, status);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_NE(status.message().find("_flash_3"), std::string_view::npos);
  EXPECT_EQ(resolved(), "native");
}

TEST(Scopes, ARoleHasAtMost15Characters) {
  Status status;
  const AttentionBackendScope scope("flash", {.role = "a.role.too.long!"}, status);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("a.role.too.long!"), std::string_view::npos) << status.message();
  EXPECT_EQ(resolved(), "native");
  const AttentionBackendScope longest("flash", {.role = "fifteen.letters"});
  EXPECT_EQ(resolved_role("fifteen.letters"), "flash");
}

// Destroyed in another order than made: only its own entry goes.
TEST(Scopes, MayEndInAnyOrder) {
  auto outer = std::make_unique<AttentionBackendScope>(Backend("flash"));
  auto inner = std::make_unique<AttentionBackendScope>(Backend("_native_math"));
  outer.reset();
  EXPECT_EQ(resolved(), "_native_math");
  inner.reset();
  EXPECT_EQ(resolved(), "native");
}

TEST(Scopes, HaveALimitThatIsAnError) {
  std::deque<AttentionBackendScope> many;
  Status failed;
  for (int i = 0; i < 1000 && failed.ok(); ++i)
    many.emplace_back(Backend("flash"), AttentionBackendScope::Filter{}, failed);
  EXPECT_EQ(failed.code(), Code::kInvalidArgument);
  EXPECT_TRUE(failed.message().starts_with("[attention] scope")) << failed.message();
  EXPECT_GE(many.size(), 32u) << "at least 32 scopes nest";
  many.clear();
  EXPECT_EQ(resolved(), "native");
  const AttentionBackendScope again("flash");  // the room is free again
  EXPECT_EQ(resolved(), "flash");
}

// Slots of the fixed table are reused, and a generation tells the old scope from the new.
TEST(Scopes, ManyOneAfterTheOther) {
  for (int i = 0; i < 50'000; ++i) {
    const AttentionBackendScope scope(i % 2 ? Backend("flash") : Backend("_native_math"));
    if (i % 1000 != 0) continue;
    ASSERT_EQ(resolved(), "_native_math");
  }
  EXPECT_EQ(resolved(), "native");
}

TEST(Scopes, LeavingTwiceOrNeverEnteredIsHarmless) {
  attnmux_scope scope{};
  attnmux_scope_leave(scope);
  ASSERT_EQ(attnmux_scope_enter(Backend("flash").id(), nullptr, 0, &scope, nullptr), ATTNMUX_OK);
  const AttentionBackendScope other("_native_math");
  attnmux_scope_leave(scope);
  attnmux_scope_leave(scope);
  attnmux_scope_leave({UINT32_MAX, 1});
  EXPECT_EQ(resolved(), "_native_math");
  EXPECT_EQ(attnmux_scope_enter(Backend("flash").id(), nullptr, 0, nullptr, nullptr), ATTNMUX_INVALID_ARGUMENT);
}

TEST(Contexts, CarryScopesToAWorker) {
  const AttentionBackendScope every("flash");
  const AttentionBackendScope cross("_native_math", {.role = "cross"});
  const BackendContext context = BackendContext::current();
  std::string bare, with, with_role, after;
  std::thread([&] {
    bare = resolved();
    {
      const BackendContext::Guard guard(context);
      with = resolved();
      with_role = resolved_role("cross");
    }
    after = resolved();
  }).join();
  EXPECT_EQ(bare, "native");
  EXPECT_EQ(with, "flash");
  EXPECT_EQ(with_role, "_native_math");
  EXPECT_EQ(after, "native");
}

// An installed context replaces the worker's own scopes, and scopes inside it nest.
TEST(Contexts, ReplaceWhatTheThreadHas) {
  const BackendContext empty = BackendContext::current();
  const AttentionBackendScope mine("flash");
  {
    const BackendContext::Guard guard(empty);
    EXPECT_EQ(resolved(), "native");
    const AttentionBackendScope inside("_native_math");
    EXPECT_EQ(resolved(), "_native_math");
    const BackendContext::Guard again(BackendContext::current());
    EXPECT_EQ(resolved(), "_native_math");
  }
  EXPECT_EQ(resolved(), "flash");
}

TEST(Contexts, KeepTheOrderOfScopes) {
  const AttentionBackendScope a("xformers"), b("flash", {.role = "dit"}), c("_native_math", {.role = "dit.joint"});
  const BackendContext context = BackendContext::current();
  const BackendContext::Guard guard(context);
  EXPECT_EQ(resolved_role("dit.joint"), "_native_math");
  EXPECT_EQ(resolved_role("dit"), "flash");
  EXPECT_EQ(resolved_role("self"), "xformers");
}

TEST(Contexts, OutliveTheScopes) {
  BackendContext context = BackendContext::current();
  {
    const AttentionBackendScope scope("flash");
    context = BackendContext::current();
  }
  const BackendContext::Guard guard(context);
  EXPECT_EQ(resolved(), "flash");
}

TEST(Contexts, OnlyWhatCaptureFilledIsAccepted) {
  attnmux_context context{};
  attnmux_scope scope{};
  Status status;
  EXPECT_EQ(attnmux_context_enter(&context, &scope, status.c_error()), ATTNMUX_INVALID_ARGUMENT);
  EXPECT_TRUE(status.message().starts_with("[attention] context")) << status.message();
  context.struct_size = sizeof(context);
  context.count = 33;
  EXPECT_EQ(attnmux_context_enter(&context, &scope, status.c_error()), ATTNMUX_INVALID_ARGUMENT);
  EXPECT_NE(status.message().find("33"), std::string_view::npos) << status.message();
  context.count = 1;  // an id that does not exist must not be used later
  context.entries[0].backend = 9999;
  if (attnmux_context_enter(&context, &scope, status.c_error()) == ATTNMUX_OK) {
    const MutableTensorView t(nullptr, Dtype::kFp32, {1, 4, 1, 8});
    Plan made;
    EXPECT_FALSE(try_plan(made, t, t, t, t).ok());
    attnmux_scope_leave(scope);
  }
  EXPECT_EQ(attnmux_context_capture(nullptr, nullptr), ATTNMUX_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace attnmux
