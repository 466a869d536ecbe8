// SPDX-License-Identifier: Apache-2.0
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <array>
#include <span>
#include <vector>

namespace attnmux {
namespace {

TEST(TensorViews, AreContiguousByDefault) {
  float data[24] = {};
  const attnmux_tensor t = TensorView(data, {2, 3, 1, 4}).c();
  EXPECT_EQ(t.data, data);
  EXPECT_EQ(t.dtype, ATTNMUX_FP32);
  EXPECT_EQ(t.device_type, ATTNMUX_CPU);
  EXPECT_EQ(t.device_id, 0);
  EXPECT_EQ(t.ndim, 4);
  const int64_t shape[] = {2, 3, 1, 4}, strides[] = {12, 4, 4, 1};
  EXPECT_TRUE(std::equal(shape, shape + 4, t.shape));
  EXPECT_TRUE(std::equal(strides, strides + 4, t.strides));
}

TEST(TensorViews, KnowTheDtypeOfAPointer) {
  EXPECT_EQ(TensorView(static_cast<const double*>(nullptr), {1}).c().dtype, ATTNMUX_FP64);
  EXPECT_EQ(TensorView(static_cast<const bool*>(nullptr), {1}).c().dtype, ATTNMUX_BOOL);
  EXPECT_EQ(TensorView(static_cast<uint8_t*>(nullptr), {1}).c().dtype, ATTNMUX_UINT8);
  EXPECT_EQ(TensorView(static_cast<int32_t*>(nullptr), {1}).c().dtype, ATTNMUX_INT32);
  EXPECT_EQ(TensorView(nullptr, Dtype::kBf16, {1}).c().dtype, ATTNMUX_BF16);
}

TEST(TensorViews, TakeExtentsFromAnyList) {
  const std::vector<int64_t> vector = {2, 3};
  const std::array<int64_t, 2> array = {2, 3};
  for (const TensorView& view : {TensorView(nullptr, Dtype::kFp32, std::span<const int64_t>(vector)),
                                 TensorView(nullptr, Dtype::kFp32, std::span<const int64_t>(array))}) {
    EXPECT_EQ(view.c().ndim, 2);
    EXPECT_EQ(view.c().shape[1], 3);
    EXPECT_EQ(view.c().strides[0], 3);
  }
}

TEST(TensorViews, ExchangeDimensions) {
  const TensorView bhsd(nullptr, Dtype::kFp16, {2, 4, 9, 8});
  const attnmux_tensor t = bhsd.transposed(1, 2).c();
  EXPECT_EQ(t.shape[1], 9);
  EXPECT_EQ(t.shape[2], 4);
  EXPECT_EQ(t.strides[1], 8);
  EXPECT_EQ(t.strides[2], 72);
  const attnmux_tensor back = MutableTensorView(bhsd.transposed(1, 2).c()).transposed(2, 1).c();
  EXPECT_EQ(back.strides[1], 72);
}

TEST(TensorViews, OfARange) {
  std::vector<int32_t> lengths = {1, 2, 3};
  const TensorView view(lengths);
  EXPECT_EQ(view.c().data, lengths.data());
  EXPECT_EQ(view.c().shape[0], 3);
  EXPECT_EQ(TensorView(std::span<const int32_t>(lengths)).c().ndim, 1);
  const int32_t plain[] = {1, 2};
  EXPECT_EQ(TensorView(plain).c().shape[0], 2);
  EXPECT_EQ(TensorView().c().dtype, 0);
}

// A rank that the ABI cannot hold reaches the call, which reports it.
TEST(TensorViews, CarryAWrongRankToTheCall) {
  const TensorView five(nullptr, Dtype::kFp32, {1, 2, 3, 4, 5});
  EXPECT_EQ(five.c().ndim, 5);
  const Status status = try_attention(five, five, five, MutableTensorView(five.c()));
  EXPECT_NE(status.message().find("5 dimensions"), std::string_view::npos) << status.message();
}

TEST(TensorViews, SurviveSizesThatOverflow) {
  const TensorView huge(nullptr, Dtype::kFp32, {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX});
  EXPECT_EQ(huge.c().ndim, 4);
  EXPECT_EQ(try_attention(huge, huge, huge, MutableTensorView(huge.c())).code(), Code::kInvalidArgument);
}

TEST(Streams, AbsentIsNotStreamZero) {
  EXPECT_EQ(Stream{}.handle(), nullptr);
  EXPECT_EQ(Stream(static_cast<CUstream_st*>(nullptr)).handle(), ATTNMUX_STREAM_LEGACY);
  EXPECT_EQ(Stream::per_thread().handle(), ATTNMUX_STREAM_PER_THREAD);
}

}  // namespace
}  // namespace attnmux
