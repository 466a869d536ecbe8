// SPDX-License-Identifier: Apache-2.0
// Pointers that are null, tensors that share memory, structs of another version.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "support/bad_call.h"

namespace attnmux {
namespace {

using test::Call;

TEST(Pointers, AreNeededToRunButNotToPlan) {
  const std::vector<std::pair<std::string, std::function<void(Call&)>>> rows = {
      {"q", [](Call& c) { c.tq.data = nullptr; }},
      {"k", [](Call& c) { c.tk.data = nullptr; }},
      {"v", [](Call& c) { c.tv.data = nullptr; }},
      {"out", [](Call& c) { c.tout.data = nullptr; }},
      {"lse",
       [](Call& c) { c.o.set |= ATTNMUX_LSE, c.o.lse = MutableTensorView(nullptr, Dtype::kFp32, {2, 6, 4}).c(); }},
      {"bias", [](Call& c) { c.o.set |= ATTNMUX_BIAS, c.o.bias = TensorView(nullptr, Dtype::kFp16, {5}).c(); }},
      {"mask.dense", [](Call& c) { Mask::dense(TensorView(nullptr, Dtype::kBool, {4, 5})).fill(c.o); }},
      {"mask.key_padding", [](Call& c) { Mask::key_padding(TensorView(nullptr, Dtype::kBool, {2, 5})).fill(c.o); }},
      {"mask.key_lengths", [](Call& c) { Mask::key_lengths(TensorView(nullptr, Dtype::kInt32, {2})).fill(c.o); }},
      {"varlen.cu_seqlens_q", [](Call& c) { c.pack({0, 3, 8}, {0, 5, 10}), c.o.cu_seqlens_q.data = nullptr; }}};
  for (const auto& [name, spoil] : rows) {
    Call call;
    spoil(call);
    const Status status = call.attention();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << name;
    EXPECT_TRUE(status.message().starts_with("[attention] " + name + ".data is null")) << status.message();
    EXPECT_TRUE(call.plan().ok()) << name << ": " << call.plan().message();
    EXPECT_TRUE(call.explain().ok()) << name << ": " << call.explain().message();
  }
}

TEST(Pointers, OfTheStructsThemselves) {
  Call c;
  const attnmux_tensor* tensors[4] = {&c.tq, &c.tk, &c.tv, &c.tout};
  const char* names[4] = {"q", "k", "v", "out"};
  for (int missing = 0; missing < 4; ++missing) {
    const attnmux_tensor* given[4];
    for (int i = 0; i < 4; ++i) given[i] = i == missing ? nullptr : tensors[i];
    Status s;
    EXPECT_EQ(attnmux_attention(given[0], given[1], given[2], given[3], nullptr, nullptr, s.c_error()),
              ATTNMUX_INVALID_ARGUMENT);
    EXPECT_EQ(s.message(), std::string("[attention] ") + names[missing] + " is a null pointer; a tensor is needed");
    // The error is optional, too.
    EXPECT_EQ(attnmux_attention(given[0], given[1], given[2], given[3], nullptr, nullptr, nullptr),
              ATTNMUX_INVALID_ARGUMENT);
  }
  EXPECT_EQ(attnmux_attention(&c.tq, &c.tk, &c.tv, &c.tout, nullptr, nullptr, nullptr), ATTNMUX_OK);
}

// A null pointer is fine where there is nothing behind it.
TEST(Pointers, MayBeNullForEmptyTensors) {
  const MutableTensorView nothing(nullptr, Dtype::kFp32, {2, 0, 3, 8});
  EXPECT_TRUE(try_attention(nothing, nothing, nothing, nothing).ok());
}

TEST(Layouts, InterleavedOutputsAreNotOverlaps) {
  std::vector<float> buffer(2 * 5 * 4 * 24);  // per token: q, k, v and out, 3 heads of 8 each
  const auto slice = [&](int which) {
    return MutableTensorView(buffer.data() + which * 24, Dtype::kFp32, {2, 5, 3, 8}, {5 * 96, 96, 8, 1});
  };
  EXPECT_TRUE(try_attention(slice(0), slice(1), slice(2), slice(3)).ok());
  const MutableTensorView shifted(buffer.data() + 3 * 24 - 1, Dtype::kFp32, {2, 5, 3, 8}, {5 * 96, 96, 8, 1});
  const Status status = try_attention(slice(0), slice(1), slice(2), shifted);
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << "reaches one element into v";
  // out as every second batch of a buffer whose others are q.
  const auto batches = [&](int which) {
    return MutableTensorView(buffer.data() + which * 120, Dtype::kFp32, {2, 5, 3, 8}, {240, 24, 8, 1});
  };
  EXPECT_TRUE(try_attention(batches(0), batches(0), batches(0), batches(1)).ok());
}

// A struct of a newer version is accepted if what this version does not know is zero.
TEST(Structs, MayGrow) {
  Call c;
  struct Newer {
    attnmux_options options;
    uint64_t later[3];
  } newer{c.o, {}};
  newer.options.struct_size = sizeof(newer);
  Status s;
  EXPECT_EQ(attnmux_attention(&c.tq, &c.tk, &c.tv, &c.tout, &newer.options, nullptr, s.c_error()), ATTNMUX_OK)
      << s.message();
  newer.later[1] = 1;
  EXPECT_EQ(attnmux_attention(&c.tq, &c.tk, &c.tv, &c.tout, &newer.options, nullptr, s.c_error()),
            ATTNMUX_INVALID_ARGUMENT);
  EXPECT_TRUE(s.message().starts_with("[attention] options ")) << s.message();
  EXPECT_NE(s.message().find(std::to_string(sizeof(attnmux_options) + 8)), std::string_view::npos) << s.message();

  struct NewerExec {
    attnmux_exec exec;
    uint64_t later;
  } exec{c.e, 0};
  exec.exec.struct_size = sizeof(exec);
  EXPECT_EQ(attnmux_attention(&c.tq, &c.tk, &c.tv, &c.tout, nullptr, &exec.exec, s.c_error()), ATTNMUX_OK);
  exec.later = 5;
  EXPECT_EQ(attnmux_attention(&c.tq, &c.tk, &c.tv, &c.tout, nullptr, &exec.exec, s.c_error()),
            ATTNMUX_INVALID_ARGUMENT);
}

// Success leaves the error alone.
TEST(Structs, ErrorsAreOnlyFilledOnFailure) {
  Call c;
  attnmux_error error;
  std::memset(&error, 0x5A, sizeof(error));
  const attnmux_error before = error;
  EXPECT_EQ(attnmux_attention(&c.tq, &c.tk, &c.tv, &c.tout, &c.o, &c.e, &error), ATTNMUX_OK);
  EXPECT_EQ(std::memcmp(&before, &error, sizeof(error)), 0);
}

}  // namespace
}  // namespace attnmux
