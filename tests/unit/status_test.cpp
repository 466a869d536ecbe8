// SPDX-License-Identifier: Apache-2.0
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <string>
#include <type_traits>

namespace attnmux {
namespace {

TEST(StatusValue, IsSmallAndNeedsNoHeap) {
  static_assert(sizeof(Status) == 512);
  static_assert(std::is_trivially_copyable_v<Status>);
  static_assert(std::is_nothrow_copy_constructible_v<Error>);
  const Status ok;
  EXPECT_TRUE(ok);
  EXPECT_EQ(ok.code(), Code::kOk);
  EXPECT_EQ(ok.message(), "");
  EXPECT_STREQ(ok.c_str(), "");
}

TEST(StatusValue, IsWhatTheThrowingVerbsThrow) {
  float data[8] = {};
  const MutableTensorView t(data, {1, 1, 1, 4}), out(data + 4, {1, 1, 1, 4});
  const Status status = try_attention(t, t, t, out, {.scale = 1.0 / 0.0});
  EXPECT_FALSE(status);
  const auto expect_throws = [&](auto verb) {
    try {
      verb();
      FAIL() << "did not throw";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), status.code());
      EXPECT_EQ(e.what(), status.message());
      EXPECT_EQ(e.status().message(), status.message());
    }
  };
  const AttentionOptions wrong{.scale = 1.0 / 0.0};
  expect_throws([&] { attention(t, t, t, out, wrong); });
  expect_throws([&] { (void)plan(t, t, t, out, wrong); });
  expect_throws([&] { (void)explain(t, t, t, out, wrong); });
  const Plan made = plan(t, t, t, out);
  expect_throws([&] { made.run(t, t, t, out, wrong); });
}

// A message that does not fit is cut, marked and still terminated.
TEST(StatusValue, LongMessagesAreCut) {
  const std::string path(2000, 'p');
  const Status status = try_load_plugin("/" + path);
  EXPECT_FALSE(status);
  EXPECT_EQ(status.message().size(), sizeof(attnmux_error::message) - 1);
  EXPECT_TRUE(status.message().ends_with("\xE2\x80\xA6")) << status.message();
  EXPECT_EQ(status.c_str()[status.message().size()], 0);
}

TEST(Version, AgreesWithTheLibrary) {
  EXPECT_STREQ(attnmux_version(), ATTNMUX_VERSION_STRING);
  EXPECT_EQ(attnmux_abi_version(), static_cast<uint32_t>(ATTNMUX_ABI_VERSION));
  EXPECT_EQ(std::string(ATTNMUX_VERSION_STRING), std::to_string(ATTNMUX_VERSION_MAJOR) + "." +
                                                     std::to_string(ATTNMUX_VERSION_MINOR) + "." +
                                                     std::to_string(ATTNMUX_VERSION_PATCH));
}

}  // namespace
}  // namespace attnmux
