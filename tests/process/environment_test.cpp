// SPDX-License-Identifier: Apache-2.0
// The ATTNMUX_* variables, each in a process of its own.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <string>

#include "support/subprocess.h"

namespace attnmux::test {
namespace {

MutableTensorView small(Dtype dtype = Dtype::kFp32) { return MutableTensorView(nullptr, dtype, {1, 4, 1, 8}); }

std::string chosen(const AttentionOptions& options) {
  const MutableTensorView t = small();
  Plan made;
  const Status status = try_plan(made, t, t, t, t, options);
  return status ? std::string(made.backend().name()) : std::string(status.message());
}

// ---- Bad values -----------------------------------------------------------------------------------------------------

// Every way in says the same, the first time and the second.
ATTNMUX_PROBE(first_uses) {
  const MutableTensorView t = small();
  std::string text;
  const auto add = [&](const Status& status) {
    text += std::to_string(static_cast<int>(status.code())) + " " + std::string(status.message()) + "\n";
  };
  Plan made;
  Explanation explanation;
  float data[64] = {};
  const MutableTensorView real(data, {1, 4, 1, 8}), out(data + 32, {1, 4, 1, 8});
  for (int twice = 0; twice < 2; ++twice) {
    add(try_attention(real, real, real, out));
    add(try_plan(made, t, t, t, t));
    add(try_explain(explanation, t, t, t, t));
    add(try_set_num_threads(2));
    add(try_set_default_attention_backend("flash"));
    add(Backend("flash").available());
    Status status;
    const AttentionBackendScope scope("flash", {}, status);
    add(status);
    Status environment;
    attnmux_check_environment(environment.c_error());
    add(environment);
  }
  return text;
}

struct BadValue {
  std::string variable, value;
  std::vector<std::string> choices;
};

TEST(Environment, BadValuesFailAtFirstUseAndNameTheChoices) {
  const BadValue rows[] = {
      {"ATTNMUX_BACKEND", "flsh", {"native", "flash", "xformers", "_flash_3"}},
      {"ATTNMUX_BACKEND", "Native", {"native"}},
      {"ATTNMUX_FORCE_BACKEND", "_native_maths", {"native", "_native_math"}},
      {"ATTNMUX_MAX_CPU_ISA", "sse9", {"baseline", "avx2", "avx512", "avx512_bf16", "amx"}},
      {"ATTNMUX_NUM_THREADS", "0", {"1", "4096"}},
      {"ATTNMUX_NUM_THREADS", "-2", {"1", "4096"}},
      {"ATTNMUX_NUM_THREADS", "2x", {"1", "4096"}},
      {"ATTNMUX_NUM_THREADS", "99999999999", {"1", "4096"}},
      {"ATTNMUX_VERBOSE", "yes", {"dispatch"}},
      {"ATTNMUX_CHECK", "always", {"sync"}},
  };
  for (const BadValue& row : rows) {
    SCOPED_TRACE(row.variable + "=" + row.value);
    const Finished child = run_probe("first_uses", {{row.variable, row.value}});
    ASSERT_EQ(child.exit_code, 0) << child.output;
    const std::string first = child.returned.substr(0, child.returned.find('\n') + 1);
    const std::string expected = std::to_string(ATTNMUX_BAD_ENVIRONMENT) + " [attention] " + row.variable + " is \"" +
                                 row.value + "\"; accepted are ";
    EXPECT_TRUE(first.starts_with(expected)) << child.returned;
    for (const std::string& choice : row.choices)
      EXPECT_NE(first.find(choice, expected.size()), std::string::npos) << first;
    std::string all;
    for (int i = 0; i < 16; ++i) all += first;
    EXPECT_EQ(child.returned, all) << "not every use says so";
  }
}

TEST(Environment, GoodAndEmptyValuesAreAccepted) {
  for (const auto& [variable, value] : Variables{{"ATTNMUX_BACKEND", "flash"},
                                                 {"ATTNMUX_FORCE_BACKEND", "_native_math"},
                                                 {"ATTNMUX_MAX_CPU_ISA", "baseline"},
                                                 {"ATTNMUX_NUM_THREADS", "3"},
                                                 {"ATTNMUX_CHECK", "sync"}}) {
    for (const std::string& given : {value, std::string()}) {
      const Finished child = run_probe("first_uses", {{variable, given}});
      EXPECT_EQ(child.exit_code, 0);
      std::string all;
      for (int i = 0; i < 16; ++i) all += "0 \n";
      EXPECT_EQ(child.returned, all) << variable << "=" << given;
    }
  }
}

// ---- ATTNMUX_BACKEND and ATTNMUX_FORCE_BACKEND ----------------------------------------------------------------------

ATTNMUX_PROBE(precedence_over_the_environment) {
  std::string text = "default " + std::string(default_attention_backend().name());
  text += " | none " + chosen({});
  {
    const AttentionBackendScope scope("_native_flash");
    text += " | scope " + chosen({});
  }
  text += " | call " + chosen({.backend = "_native_math"});
  set_default_attention_backend("_native_efficient");
  text += " | set " + chosen({});
  set_default_attention_backend({});
  return text + " | reset " + chosen({});
}

TEST(Environment, BackendIsTheInitialProcessDefault) {
  const Finished child = run_probe("precedence_over_the_environment", {{"ATTNMUX_BACKEND", "xformers"}});
  EXPECT_EQ(child.returned,
            "default xformers | none xformers | scope _native_flash | call _native_math | set _native_efficient | "
            "reset xformers");
}

TEST(Environment, ForceBeatsEverything) {
  const Finished child = run_probe("precedence_over_the_environment",
                                   {{"ATTNMUX_FORCE_BACKEND", "flash"}, {"ATTNMUX_BACKEND", "xformers"}});
  EXPECT_EQ(child.returned, "default xformers | none flash | scope flash | call flash | set flash | reset flash");
}

ATTNMUX_PROBE(forced_traces) {
  const MutableTensorView t = small();
  uint16_t forced = 0;
  attnmux_forced_backend(&forced, nullptr);
  return std::to_string(forced) + "\n" + explain(t, t, t, t, {.backend = "xformers"}).text;
}

TEST(Environment, EveryTraceShowsWhatIsForced) {
  const Finished child = run_probe("forced_traces", {{"ATTNMUX_FORCE_BACKEND", "_native_math"}});
  EXPECT_TRUE(child.returned.starts_with("2\n_native_math → cpu_math")) << child.returned;
  EXPECT_NE(child.returned.find("chosen by: ATTNMUX_FORCE_BACKEND"), std::string::npos) << child.returned;
  EXPECT_NE(child.returned.find("call xformers"), std::string::npos) << child.returned;
  EXPECT_NE(child.returned.find("ATTNMUX_FORCE_BACKEND _native_math"), std::string::npos) << child.returned;
  EXPECT_TRUE(run_probe("forced_traces").returned.starts_with("0\nxformers"));
}

// What the forced backend cannot run is an error, as always.
ATTNMUX_PROBE(forced_cannot_run_fp64) {
  const MutableTensorView t = small(Dtype::kFp64);
  Plan made;
  const Status status = try_plan(made, t, t, t, t);
  return std::to_string(static_cast<int>(status.code())) + " " + std::string(status.message());
}

TEST(Environment, WhatTheForcedBackendCannotRunIsAnError) {
  const Finished fp64 = run_probe("forced_cannot_run_fp64", {{"ATTNMUX_FORCE_BACKEND", "flash"}});
  EXPECT_TRUE(fp64.returned.starts_with(std::to_string(ATTNMUX_UNSUPPORTED) + " [attention] backend \"flash\""))
      << fp64.returned;
  const Finished missing = run_probe("forced_cannot_run_fp64", {{"ATTNMUX_FORCE_BACKEND", "sage"}});
  EXPECT_TRUE(missing.returned.starts_with(std::to_string(ATTNMUX_UNAVAILABLE) + " [attention] backend \"sage\""))
      << missing.returned;
}

TEST(Environment, BackendOfAPluginThatIsNotLoaded) {
  const Finished child = run_probe("precedence_over_the_environment", {{"ATTNMUX_FORCE_BACKEND", "acme.flash"}});
  EXPECT_NE(child.returned.find("[attention] ATTNMUX_FORCE_BACKEND is \"acme.flash\""), std::string::npos)
      << child.returned;
}

// ---- ATTNMUX_VERBOSE, ATTNMUX_NUM_THREADS ---------------------------------------------------------------------------

ATTNMUX_PROBE(verbose_calls) {
  std::string lines;
  const bool own_sink = std::getenv("ATTNMUX_TEST_SINK") != nullptr;
  if (own_sink) {
    set_log_sink(
        [](void* to, const char* line, size_t n) { static_cast<std::string*>(to)->append(line, n).append("|"); },
        &lines);
  }
  float data[64] = {};
  const MutableTensorView real(data, {1, 4, 1, 8}), out(data + 32, {1, 4, 1, 8});
  attention(real, real, real, out, {.backend = "flash"});
  set_log_sink(nullptr);
  return lines;
}

TEST(Environment, VerboseDispatchTracesEveryCall) {
  const Finished quiet = run_probe("verbose_calls");
  EXPECT_EQ(quiet.output.find("flash → "), std::string::npos) << "prints without being asked: " << quiet.output;
  const Finished on_stderr = run_probe("verbose_calls", {{"ATTNMUX_VERBOSE", "dispatch"}});
  EXPECT_NE(on_stderr.output.find("flash → cpu_flash"), std::string::npos) << on_stderr.output;
  EXPECT_NE(on_stderr.output.find("chosen by: call"), std::string::npos) << on_stderr.output;
  const Finished in_sink = run_probe("verbose_calls", {{"ATTNMUX_VERBOSE", "dispatch"}, {"ATTNMUX_TEST_SINK", "1"}});
  EXPECT_TRUE(in_sink.returned.starts_with("flash → cpu_flash")) << in_sink.returned;
  EXPECT_NE(in_sink.returned.find("|precedence: call flash"), std::string::npos) << in_sink.returned;
}

ATTNMUX_PROBE(thread_counts) {
  const int first = num_threads();
  set_num_threads(5);
  const int set = num_threads();
  set_num_threads(0);
  return std::to_string(first) + " " + std::to_string(set) + " " + std::to_string(num_threads());
}

TEST(Environment, NumThreadsIsWhereThePoolStarts) {
  EXPECT_EQ(run_probe("thread_counts", {{"ATTNMUX_NUM_THREADS", "3"}}).returned, "3 5 3");
  const std::string cores = run_probe("thread_counts").returned;
  EXPECT_EQ(cores.substr(0, cores.find(' ')), cores.substr(cores.rfind(' ') + 1)) << cores;
}

}  // namespace
}  // namespace attnmux::test
