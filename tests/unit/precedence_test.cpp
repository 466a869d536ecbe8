// SPDX-License-Identifier: Apache-2.0
// Who decides: call > layer > scope > process default > native; and explain tells. (ATTNMUX_BACKEND and
// ATTNMUX_FORCE_BACKEND need a process of their own: tests/process/environment_test.cpp.)
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace attnmux {
namespace {

struct Answer {
  std::string backend, chosen_by, text;
};

Answer ask(const AttentionOptions& options) {
  const MutableTensorView t(nullptr, Dtype::kFp32, {1, 4, 1, 8});
  const std::string text = explain(t, t, t, t, options).text;
  const auto json = nlohmann::json::parse(explain(t, t, t, t, options, {}, {.json = true}).text);
  EXPECT_EQ(plan(t, t, t, t, options).backend().name(), json.at("backend").get<std::string>())
      << "plan and explain disagree";
  EXPECT_TRUE(text.starts_with(json.at("backend").get<std::string>() + " ")) << text;
  return {json.at("backend"), json.at("chosen_by"), text};
}

class PrecedenceOfBackends : public ::testing::Test {
 protected:
  void TearDown() override { set_default_attention_backend({}); }
};

TEST_F(PrecedenceOfBackends, EachLevelBeatsTheNext) {
  Answer a = ask({});
  EXPECT_EQ(a.backend, "native");
  EXPECT_EQ(a.chosen_by, "default");

  set_default_attention_backend("xformers");
  EXPECT_EQ(default_attention_backend(), Backend("xformers"));
  a = ask({});
  EXPECT_EQ(a.backend, "xformers");
  EXPECT_EQ(a.chosen_by, "process default");

  const AttentionBackendScope scope("_native_flash");
  a = ask({});
  EXPECT_EQ(a.backend, "_native_flash");
  EXPECT_EQ(a.chosen_by, "scope");

  AttentionLayer layer{"self"};
  a = ask({.layer = &layer});
  EXPECT_EQ(a.backend, "_native_flash") << "a layer without a backend of its own inherits";
  layer.set_backend("flash");
  a = ask({.layer = &layer});
  EXPECT_EQ(a.backend, "flash");
  EXPECT_EQ(a.chosen_by, "layer");

  a = ask({.backend = "_native_math", .layer = &layer});
  EXPECT_EQ(a.backend, "_native_math");
  EXPECT_EQ(a.chosen_by, "call");
  // The whole trail stands in the text.
  EXPECT_NE(a.text.find("call _native_math"), std::string::npos) << a.text;
  EXPECT_NE(a.text.find("layer flash"), std::string::npos) << a.text;
  EXPECT_NE(a.text.find("scope _native_flash"), std::string::npos) << a.text;
  EXPECT_NE(a.text.find("process default xformers"), std::string::npos) << a.text;
}

TEST_F(PrecedenceOfBackends, DefaultReturnsToNative) {
  set_default_attention_backend("flash");
  EXPECT_EQ(ask({}).backend, "flash");
  set_default_attention_backend({});
  EXPECT_EQ(ask({}).backend, "native");
  EXPECT_EQ(default_attention_backend(), Backend("native"));
}

TEST_F(PrecedenceOfBackends, ADefaultThatCannotRunHereIsRefused) {
  set_default_attention_backend("flash");
  EXPECT_EQ(try_set_default_attention_backend("sage").code(), Code::kUnavailable);
  EXPECT_EQ(ask({}).backend, "flash") << "a refused setter changed something";
}

// A plan is resolved where it is made and never looks again.
TEST_F(PrecedenceOfBackends, APlanNeverLooksAgain) {
  float data[2 * 32] = {};
  const MutableTensorView t(data, {1, 4, 1, 8}), out(data + 32, {1, 4, 1, 8});
  Plan made;
  {
    const AttentionBackendScope scope("_native_math");
    made = plan(t, t, t, out);
  }
  set_default_attention_backend("flash");
  made.run(t, t, t, out);
  EXPECT_EQ(made.backend(), Backend("_native_math"));
}

// A named backend is a promise: no fallback, and the error has the reason of each kernel.
TEST_F(PrecedenceOfBackends, NamedBackendsDoNotFallBack) {
  const MutableTensorView t(nullptr, Dtype::kFp64, {1, 4, 1, 8});
  Plan made;
  const Status status = try_plan(made, t, t, t, t, {.backend = "flash"});
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_TRUE(status.message().starts_with("[attention] backend \"flash\"")) << status.message();
  EXPECT_NE(status.message().find("fp64"), std::string_view::npos) << status.message();
  EXPECT_NE(status.message().find("cpu_flash_baseline"), std::string_view::npos) << status.message();
  EXPECT_TRUE(try_plan(made, t, t, t, t, {.backend = "_native_math"}).ok());
  EXPECT_TRUE(try_plan(made, t, t, t, t).ok());
  EXPECT_EQ(made.kernel(), "cpu_math");
}

TEST_F(PrecedenceOfBackends, AutoIsRefusedForNow) {
  const MutableTensorView t(nullptr, Dtype::kFp32, {1, 4, 1, 8});
  Plan made;
  const Status status = try_plan(made, t, t, t, t, {.backend = "auto"});
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_NE(status.message().find("auto"), std::string_view::npos);
  EXPECT_NE(status.message().find("native"), std::string_view::npos) << status.message();
}

TEST_F(PrecedenceOfBackends, ExplainAnswersWhatNothingCanRun) {
  const MutableTensorView t(nullptr, Dtype::kFp64, {1, 4, 1, 8});
  const Explanation answer = explain(t, t, t, t, {.backend = "flash"});
  EXPECT_TRUE(answer.text.starts_with("flash → no kernel")) << answer.text;
  EXPECT_NE(answer.text.find("cpu_flash_baseline"), std::string::npos) << answer.text;
  EXPECT_NE(answer.text.find("fp64"), std::string::npos) << answer.text;
}

TEST_F(PrecedenceOfBackends, ExplainAllAddsEveryOtherBackend) {
  const MutableTensorView t(nullptr, Dtype::kBf16, {1, 4, 1, 8});
  const std::string one = explain(t, t, t, t).text, all = explain(t, t, t, t, {}, {}, {.all = true}).text;
  EXPECT_EQ(one.find("\n  xformers"), std::string::npos) << one;
  for (const std::string_view name : kBackendNames) {
    EXPECT_NE(all.find(name), std::string::npos) << name;
  }
  const auto json = nlohmann::json::parse(explain(t, t, t, t, {}, {}, {.json = true}).text);
  EXPECT_EQ(json.at("backends").size() + 1, kBackendNames.size());
  EXPECT_GE(json.at("kernels").size(), 2u);
  for (const auto& kernel : json.at("kernels")) {
    EXPECT_TRUE(kernel.at("runs").get<bool>() || !kernel.at("reason").get<std::string>().empty()) << kernel;
  }
}

}  // namespace
}  // namespace attnmux
