// SPDX-License-Identifier: Apache-2.0
// Names of backends: at compile time, at run time, and what each says about itself.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>

#include "support/catalog.h"

namespace attnmux {
namespace {

TEST(BackendNames, AreLookedUpByTheCompiler) {
  constexpr Backend flash = "flash";
  static_assert(flash.id() != 0);
  static_assert(!Backend{});
  EXPECT_EQ(flash.name(), "flash");
  EXPECT_EQ(Backend{}.name(), "");
  EXPECT_EQ(Backend("flash"), Backend::named("flash"));
  EXPECT_NE(Backend("flash"), Backend("native"));
}

// Ids end up in saved graphs: a name keeps its id for good.
TEST(BackendNames, KeepTheirIds) {
  const struct {
    Backend backend;
    int id;
  } ids[] = {{"native", 1},
             {"_native_math", 2},
             {"_native_flash", 3},
             {"_native_efficient", 4},
             {"_native_cudnn", 5},
             {"_native_xla", 6},
             {"_native_npu", 7},
             {"flex", 8},
             {"flash", 9},
             {"flash_varlen", 10},
             {"_flash_3", 11},
             {"_flash_varlen_3", 12},
             {"_flash_3_hub", 13},
             {"sage", 14},
             {"sage_varlen", 15},
             {"_sage_qk_int8_pv_fp16_cuda", 16},
             {"_sage_qk_int8_pv_fp16_triton", 17},
             {"_sage_qk_int8_pv_fp8_cuda", 18},
             {"_sage_qk_int8_pv_fp8_cuda_sm90", 19},
             {"xformers", 20},
             {"auto", 21}};
  for (const auto& [backend, id] : ids) {
    EXPECT_EQ(backend.id(), id);
    EXPECT_EQ(Backend::find(backend.name()), backend);
    EXPECT_EQ(attnmux_backend_find(backend.name().data(), backend.name().size()), id);
  }
}

TEST(BackendNames, UnknownOnesNameTheClosest) {
  EXPECT_EQ(Backend::find("flsh"), std::nullopt);
  EXPECT_EQ(Backend::find(""), std::nullopt);
  EXPECT_EQ(Backend::find("FLASH"), std::nullopt);
  EXPECT_EQ(Backend::find("flash "), std::nullopt);
  const std::pair<std::string, std::string> rows[] = {{"flsh", "\"flash\""},
                                                      {"nativ", "\"native\""},
                                                      {"_flash3", "\"_flash_3\""},
                                                      {"Sage", "\"sage\""},
                                                      {"xformer", "\"xformers\""}};
  for (const auto& [wrong, closest] : rows) {
    Backend backend;
    const Status status = Backend::try_named(wrong, backend);
    EXPECT_EQ(status.code(), Code::kUnknownBackend);
    EXPECT_TRUE(status.message().starts_with("[attention] backend \"" + wrong + "\" does not exist"))
        << status.message();
    EXPECT_NE(status.message().find(closest), std::string_view::npos) << status.message();
    EXPECT_FALSE(backend);
    try {
      (void)Backend::named(wrong);
      FAIL() << "did not throw";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUnknownBackend);
      EXPECT_EQ(e.what(), status.message());
    }
  }
}

TEST(BackendNames, SurviveHostileText) {
  const std::string texts[] = {std::string(100'000, 'x'), std::string("fla\0sh", 6), "\xff\xfe", "%s%n", "flash\n"};
  for (const std::string& text : texts) {
    Backend backend;
    const Status status = Backend::try_named(text, backend);
    EXPECT_EQ(status.code(), Code::kUnknownBackend);
    EXPECT_LT(status.message().size(), sizeof(attnmux_error::message));
    EXPECT_EQ(status.message().size(), std::strlen(status.c_str())) << "a zero inside of the message";
    EXPECT_EQ(status.message().find('\n'), std::string_view::npos) << status.message();
  }
  EXPECT_EQ(attnmux_backend_find(nullptr, 0), 0);
}

TEST(BackendNames, UnknownIdsAreRefused) {
  EXPECT_EQ(attnmux_backend_name(9999), nullptr);
  const Backend unknown = Backend::from_id(9999);
  EXPECT_EQ(unknown.name(), "");
  for (const Status& status : {unknown.available(), try_set_default_attention_backend(unknown)}) {
    EXPECT_EQ(status.code(), Code::kUnknownBackend);
    EXPECT_NE(status.message().find("9999"), std::string_view::npos) << status.message();
  }
  float data[8] = {};
  const MutableTensorView t(data, {1, 1, 1, 4}), out(data + 4, {1, 1, 1, 4});
  const Status status = try_attention(t, t, t, out, {.backend = unknown});
  EXPECT_EQ(status.code(), Code::kUnknownBackend);
  EXPECT_NE(status.message().find("9999"), std::string_view::npos) << status.message();
}

// The table of backends as tools read it.
TEST(BackendTable, HasEveryNameWithAReasonWhereItIsMissing) {
  const auto table = test::describe(ATTNMUX_DESCRIBE_BACKENDS);
  ASSERT_GE(table.size(), kBackendNames.size());
  for (size_t i = 0; i < kBackendNames.size(); ++i) {
    const auto& row = table[i];
    SCOPED_TRACE(std::string(kBackendNames[i]));
    EXPECT_EQ(row.at("name"), kBackendNames[i]);
    EXPECT_EQ(row.at("id"), i + 1);
    EXPECT_FALSE(row.at("family").get<std::string>().empty());
    EXPECT_GT(row.at("promise").get<std::string>().size(), 10u);
    EXPECT_FALSE(row.at("plugin").get<bool>());
    const Backend backend = Backend::named(kBackendNames[i]);
    const bool available = row.at("available");
    EXPECT_EQ(backend.available().ok(), available);
    EXPECT_EQ(row.at("reason").get<std::string>().empty(), available);
    EXPECT_EQ(row.at("kernels").size(), row.at("kernel_details").size());
    EXPECT_EQ(backend.available().code(), available ? Code::kOk : Code::kUnavailable);
  }
}

// What is promised to run without a GPU, and no more than that.
TEST(BackendTable, OnThisMachine) {
  const std::set<std::string> expected = {"native", "_native_math", "_native_flash", "_native_efficient",
                                          "flash",  "flash_varlen", "xformers"};
  std::set<std::string> available;
  for (const auto& row : test::describe(ATTNMUX_DESCRIBE_BACKENDS)) {
    if (row.at("available").get<bool>() && !row.at("plugin").get<bool>()) available.insert(row.at("name"));
  }
  EXPECT_EQ(available, expected);
}

TEST(BackendTable, KernelsSayWhatTheyAre) {
  for (const test::Target& t : test::targets()) {
    SCOPED_TRACE(t.text());
    EXPECT_NE(t.dtypes, 0u);
    EXPECT_NE(attnmux_kernel_find(t.kernel.data(), t.kernel.size()), 0);
    EXPECT_TRUE(t.kernel.starts_with("cpu_")) << "a kernel's name is its path under src/kernels";
  }
  EXPECT_EQ(attnmux_kernel_find("cpu_nothing", 11), 0);
}

// Asking for a backend that is not there fails with its reason, from every verb.
TEST(BackendTable, MissingBackendsAreRefusedWithTheirReason) {
  float data[8] = {};
  const MutableTensorView t(data, {1, 1, 1, 4}), out(data + 4, {1, 1, 1, 4});
  for (const auto& row : test::describe(ATTNMUX_DESCRIBE_BACKENDS)) {
    if (row.at("available").get<bool>()) continue;
    const std::string name = row.at("name"), reason = row.at("reason");
    const Backend backend = Backend::named(name);
    Plan plan;
    // Where there are kernels, but for another device, a call says that of its tensors: it does not look for the
    // device.
    const std::string of_call = row.at("kernels").empty() ? reason : "tensors are on the cpu";
    for (const auto& [status, part] : {std::pair(try_attention(t, t, t, out, {.backend = backend}), of_call),
                                       {try_plan(plan, t, t, t, out, {.backend = backend}), of_call},
                                       {try_set_default_attention_backend(backend), reason},
                                       {backend.available(), reason}}) {
      EXPECT_EQ(status.code(), Code::kUnavailable) << status.message();
      EXPECT_TRUE(status.message().starts_with("[attention] backend \"" + name + "\"")) << status.message();
      EXPECT_NE(status.message().find(part), std::string_view::npos) << status.message();
    }
    EXPECT_NE(explain(t, t, t, out, {.backend = backend}).text.find(of_call), std::string::npos);
  }
}

TEST(BackendTable, AKernelOfAnotherBackendIsRefused) {
  float data[8] = {};
  const MutableTensorView t(data, {1, 1, 1, 4}), out(data + 4, {1, 1, 1, 4});
  const Status other = try_attention(t, t, t, out, {.backend = "_native_math", .kernel = "cpu_flash_baseline"});
  EXPECT_FALSE(other.ok());
  EXPECT_NE(other.message().find("cpu_flash_baseline"), std::string_view::npos) << other.message();
  EXPECT_NE(other.message().find("_native_math"), std::string_view::npos) << other.message();
  const Status unknown = try_attention(t, t, t, out, {.kernel = "cpu_nothing"});
  EXPECT_FALSE(unknown.ok());
  EXPECT_TRUE(unknown.message().starts_with("[attention] ")) << unknown.message();
}

}  // namespace
}  // namespace attnmux
