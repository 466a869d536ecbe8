// SPDX-License-Identifier: Apache-2.0
#include <io/safetensors.h>

#include "io_testing.h"

namespace attnmux::io::testing {
namespace {

TEST(Safetensors, ReadsEveryDtypeOfTheReferenceImplementation) {
  const TensorFile file = load_safetensors(golden("all_dtypes.safetensors"));
  EXPECT_EQ(file.tensors().size(), 12u);
  EXPECT_EQ(file.metadata().at("made by"), "make_goldens.py");
  expect_golden_values<double>(file.at("f64"));
  expect_golden_values<float>(file.at("f32"));
  expect_golden_values<uint8_t>(file.at("u8"));
  expect_golden_values<bool>(file.at("bool"));
  expect_golden_values<int32_t>(file.at("i32"));
  expect_golden_values<int32_t>(file.at("größe \"x\"\n"));
  expect_golden_values<float>(file.at("scalar"));
  expect_golden_values<float>(file.at("empty"));
  expect_golden_values_16(file.at("f16"), 5);
  expect_golden_values_16(file.at("bf16"), 8);
  EXPECT_EQ(file.at("f32").shape, (std::vector<int64_t>{2, 3, 1, 2}));
  EXPECT_EQ(file.at("scalar").shape, std::vector<int64_t>{});
  EXPECT_EQ(file.at("empty").shape, (std::vector<int64_t>{0, 4}));
  EXPECT_EQ(file.at("rank8").shape, (std::vector<int64_t>{1, 2, 1, 2, 1, 2, 1, 1}));
  EXPECT_EQ(file.at("bf16").dtype, ATTNMUX_BF16);
}

TEST(Safetensors, ListsDtypesThatCannotBeUsedAndRefusesThemByName) {
  const TensorFile file = load_safetensors(golden("all_dtypes.safetensors"));
  const NamedTensor* tensor = file.find("i64");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->dtype, 0);
  EXPECT_EQ(tensor->file_dtype, "I64");
  EXPECT_EQ(tensor->bytes, 16u);
  const std::string message = message_of([&] { (void)file.at("i64"); });
  EXPECT_NE(message.find("\"i64\" has dtype I64; accepted are F64, F32,"), std::string::npos) << message;
}

TEST(Safetensors, NamesTheTensorsThatThereAre) {
  const TensorFile file = load_safetensors(golden("all_dtypes.safetensors"));
  const std::string message = message_of([&] { (void)file.at("Q"); });
  EXPECT_NE(message.find("has no tensor \"Q\"; it has \"bf16\", \"bool\", \"empty\""), std::string::npos) << message;
  const TensorFile nothing = load_safetensors(golden("nothing.safetensors"));
  EXPECT_TRUE(nothing.tensors().empty());
  EXPECT_NE(message_of([&] { (void)nothing.at("q"); }).find("it has none"), std::string::npos);
}

TEST(Safetensors, ViewsForTheVerbs) {
  const TensorFile file = load_safetensors(golden("all_dtypes.safetensors"));
  const attnmux_tensor view = file.at("f32").view().c();
  EXPECT_EQ(view.ndim, 4);
  EXPECT_EQ(view.dtype, ATTNMUX_FP32);
  EXPECT_EQ(view.shape[1], 3);
  EXPECT_EQ(view.strides[0], 6);
  EXPECT_EQ(view.data, file.at("f32").data);
  EXPECT_NE(message_of([&] { (void)file.at("rank8").view(); }).find("at most 4"), std::string::npos);
  EXPECT_NE(message_of([&] { (void)file.at("f32").values<double>(); }).find("dtype is F32; accepted is F64"),
            std::string::npos);
}

TEST(Safetensors, WritesTheBytesOfTheReferenceImplementation) {
  const std::string path = golden("usable.safetensors");
  const TensorFile file = load_safetensors(path);
  const auto written = format_safetensors(file.tensors(), file.metadata(), "memory");
  EXPECT_EQ(text_of(written), text_of(read_file(path).span()));
  const auto nothing = format_safetensors({}, {}, "memory");
  EXPECT_EQ(text_of(nothing), text_of(read_file(golden("nothing.safetensors")).span()));
}

TEST(Safetensors, RoundTripsThroughAFile) {
  const std::vector<float> q = {1.5f, -2.f, 0.f, 1e-40f, 3e38f, -0.f};
  const std::vector<int32_t> lengths = {INT32_MIN, 7};
  const uint8_t odd[3] = {1, 2, 3};
  const std::vector<NamedTensor> tensors = {borrow_tensor("lengths", ATTNMUX_INT32, {2}, lengths.data()),
                                            borrow_tensor("odd", ATTNMUX_UINT8, {3, 1}, odd),
                                            borrow_tensor("q", ATTNMUX_FP32, {1, 2, 3}, q.data())};
  const std::string path = temporary("out.safetensors");
  save_safetensors(path, tensors, {{"b", "2"}, {"a", "1"}});
  const TensorFile file = load_safetensors(path);
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(file.metadata(), (Metadata{{"a", "1"}, {"b", "2"}}));
  ASSERT_EQ(file.tensors().size(), 3u);
  for (const NamedTensor& tensor : tensors) {
    const NamedTensor& read = file.at(tensor.name);
    EXPECT_EQ(read.dtype, tensor.dtype);
    EXPECT_EQ(read.shape, tensor.shape);
    EXPECT_EQ(text_of({read.data, read.bytes}), text_of({tensor.data, tensor.bytes}));
  }
}

TEST(Safetensors, OrderOfTensorsDoesNotChangeTheFile) {
  const float x[2] = {1, 2};
  const std::vector<NamedTensor> ab = {borrow_tensor("a", ATTNMUX_FP32, {1}, x),
                                       borrow_tensor("b", ATTNMUX_FP32, {1}, x + 1)};
  const std::vector<NamedTensor> ba = {ab[1], ab[0]};
  EXPECT_EQ(format_safetensors(ab, {}, "f"), format_safetensors(ba, {}, "f"));
}

TEST(Safetensors, MisalignedTensorsAreCopied) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  const float value = 0.25f;
  text += header + '\x07' + std::string(reinterpret_cast<const char*>(&value), 4);
  const TensorFile file = parse_safetensors(bytes_of(text), "memory");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.at("b").data) % 4, 0u);
  EXPECT_EQ(file.at("b").values<float>()[0], 0.25f);
  EXPECT_EQ(file.at("a").values<uint8_t>()[0], 7);
}

TEST(Safetensors, TensorsOutliveTheirFile) {
  NamedTensor tensor;
  {
    const TensorFile file = load_safetensors(golden("all_dtypes.safetensors"));
    tensor = file.at("f64");
  }
  expect_golden_values<double>(tensor);
}

TEST(Safetensors, RefusesToWriteWhatItCouldNotRead) {
  const float x[2] = {1, 2};
  const auto message = [&](std::vector<NamedTensor> tensors, const Metadata& metadata = {}) {
    return message_of([&] { (void)format_safetensors(tensors, metadata, "out.safetensors"); });
  };
  const NamedTensor good = borrow_tensor("x", ATTNMUX_FP32, {2}, x);
  NamedTensor bad = good;
  EXPECT_NE(message({good, good}).find("name \"x\" is given twice"), std::string::npos);
  bad.name = "__metadata__";
  EXPECT_NE(message({bad}).find("\"__metadata__\" is reserved"), std::string::npos);
  bad.name = "\xFF";
  EXPECT_NE(message({bad}).find("not valid UTF-8"), std::string::npos);
  EXPECT_NE(message({good}, {{"a", "\xC3"}}).find("not valid UTF-8"), std::string::npos);
  bad = good;
  bad.bytes = 4;
  EXPECT_NE(message({bad}).find("shape (2,) does not fit 4 bytes of F32"), std::string::npos);
  bad = good;
  bad.shape = {1, 1, 1, 1, 1, 1, 1, 1, 2};
  EXPECT_NE(message({bad}).find("does not fit"), std::string::npos);
  bad.dtype = ATTNMUX_E4M3;
  EXPECT_NE(message({bad}).find("dtype that cannot be written"), std::string::npos);
  EXPECT_NE(message_of([&] { (void)borrow_tensor("x", ATTNMUX_E4M3, {2}, x); }).find("dtype number 8"),
            std::string::npos);
  EXPECT_NE(message_of([&] { (void)borrow_tensor("x", ATTNMUX_FP32, {-1}, x); }).find("shape (-1,)"),
            std::string::npos);
}

}  // namespace
}  // namespace attnmux::io::testing
