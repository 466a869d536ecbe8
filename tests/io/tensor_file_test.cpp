// SPDX-License-Identifier: Apache-2.0
#include <io/tensor_file.h>

#include <filesystem>
#include <fstream>
#include <locale>

#include "io_testing.h"

namespace attnmux::io::testing {
namespace {

TEST(TensorFile, LoadsAndSavesBySuffix) {
  EXPECT_EQ(load_tensor_file(golden("usable.safetensors")).tensors().size(), 11u);
  const TensorFile npy = load_tensor_file(golden("vector.npy"));
  expect_golden_values<float>(npy.at("vector"));

  const std::string stem = temporary("copy");
  save_tensor_file(stem + ".npy", npy.tensors());
  save_tensor_file(stem + ".safetensors", npy.tensors());
  expect_golden_values<float>(load_tensor_file(stem + ".npy").tensors()[0]);
  expect_golden_values<float>(load_tensor_file(stem + ".safetensors").at("vector"));
}

TEST(TensorFile, ReadsTheAttentionOfARealEncoder) {
  const TensorFile file = load_tensor_file(ATTNMUX_SOURCE_DIR "/data/minilm_attention.safetensors");
  EXPECT_EQ(file.at("sentences.key_lengths").values<int32_t>().size(), 4u);
  for (const char* name : {"sentences.0", "sentences.5", "page.2"}) {
    const std::string layer = name;
    const NamedTensor& q = file.at(layer + ".q");
    ASSERT_EQ(q.shape.size(), 4u);
    EXPECT_EQ(q.dtype, ATTNMUX_FP16);
    EXPECT_EQ(file.at(layer + ".k").shape, q.shape);
    EXPECT_EQ(file.at(layer + ".v").shape, q.shape);
    EXPECT_EQ(file.at(layer + ".out").shape, q.shape);
    EXPECT_EQ(file.at(layer + ".out").dtype, ATTNMUX_FP32);
  }
  EXPECT_EQ(file.at("page.2.q").shape, (std::vector<int64_t>{1, 512, 12, 32}));
}

TEST(TensorFile, RefusesOtherSuffixes) {
  const std::string wanted = "accepted are names that end in .safetensors or .npy";
  for (const char* path : {"q", "q.npz", "q.bin", "dir.npy/q", ".safetensors.gz", ""}) {
    EXPECT_NE(message_of([&] { (void)load_tensor_file(path); }).find(wanted), std::string::npos) << path;
    EXPECT_NE(message_of([&] { save_tensor_file(path, {}); }).find(wanted), std::string::npos) << path;
  }
}

TEST(TensorFile, AnNpyFileHoldsOneTensor) {
  const float x = 1;
  const std::vector<NamedTensor> two = {borrow_tensor("a", ATTNMUX_FP32, {1}, &x),
                                        borrow_tensor("b", ATTNMUX_FP32, {1}, &x)};
  EXPECT_NE(message_of([&] { save_tensor_file("out.npy", two); }).find("holds one tensor, not 2"), std::string::npos);
  EXPECT_NE(message_of([&] { save_tensor_file("out.npy", {}); }).find("holds one tensor, not 0"), std::string::npos);
}

TEST(TensorFile, PathsThatCannotBeRead) {
  const auto message = [](const std::string& path) { return message_of([&] { (void)load_tensor_file(path); }); };
  EXPECT_EQ(message("/no/such/q.npy"), "/no/such/q.npy: no such file");
  const std::string folder = temporary("folder.npy");
  std::filesystem::create_directory(folder);
  EXPECT_EQ(message(folder), folder + ": not a regular file");
  const std::string empty = temporary("empty.npy");
  std::ofstream(empty).close();
  EXPECT_NE(message(empty).find("cut short after 0 bytes"), std::string::npos);
  EXPECT_NE(message("/no/such/q.npy").find("no such file"), std::string::npos);
}

TEST(TensorFile, PathsThatCannotBeWritten) {
  const float x = 1;
  const std::vector<NamedTensor> one = {borrow_tensor("a", ATTNMUX_FP32, {1}, &x)};
  const std::string message = message_of([&] { save_tensor_file("/no/such/folder/q.npy", one); });
  EXPECT_NE(message.find("/no/such/folder/q.npy: cannot be opened for writing: "), std::string::npos) << message;
  if (std::filesystem::exists("/dev/full")) {
    const std::string link = temporary("full.npy");
    std::filesystem::remove(link);
    std::filesystem::create_symlink("/dev/full", link);
    const std::string full = message_of([&] { save_tensor_file(link, one); });
    EXPECT_NE(full.find("writing 132 bytes failed: "), std::string::npos) << full;
  }
}

/// Groups digits by dots and writes decimal commas, as many languages do.
struct Commas : std::numpunct<char> {
  char do_thousands_sep() const override { return '.'; }
  char do_decimal_point() const override { return ','; }
  std::string do_grouping() const override { return "\3"; }
};

TEST(TensorFile, NumbersDoNotDependOnTheLocale) {
  const std::vector<float> x(1234, 1.5f);
  const NamedTensor tensor = borrow_tensor("x", ATTNMUX_FP32, {1234, 1}, x.data());
  const auto safetensors = format_safetensors(std::vector{tensor}, {}, "f");
  const auto npy = format_npy(tensor, "f");

  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new Commas));
  EXPECT_EQ(format_safetensors(std::vector{tensor}, {}, "f"), safetensors);
  EXPECT_EQ(format_npy(tensor, "f"), npy);
  EXPECT_EQ(parse_npy(npy, "f").shape, tensor.shape);
  EXPECT_EQ(parse_safetensors(safetensors, "f").at("x").shape, tensor.shape);
  EXPECT_EQ(shape_text(tensor.shape), "(1234, 1)");
  std::locale::global(before);
}

TEST(TensorFile, CountsElementsWithoutOverflow) {
  const auto count = [](std::vector<int64_t> shape) { return count_elements(shape); };
  EXPECT_EQ(count({}), 1);
  EXPECT_EQ(count({3, 4}), 12);
  EXPECT_EQ(count({INT64_MAX}), INT64_MAX);
  EXPECT_EQ(count({INT64_MAX, 2}), std::nullopt);
  EXPECT_EQ(count({INT64_MAX, INT64_MAX, 0}), 0);
  EXPECT_EQ(count({0, -1}), std::nullopt);
}

TEST(TensorFile, QuotesHostileText) {
  EXPECT_EQ(in_quotes("a\"b\\c\n\x7F"), "\"a\\\"b\\\\c\\x0a\\x7f\"");
  const std::string cut = in_quotes("x" + std::string(79, 'y') + "é");
  EXPECT_EQ(cut, "\"x" + std::string(79, 'y') + "…\"");
  EXPECT_EQ(in_quotes(std::string(79, 'y') + "é"), "\"" + std::string(79, 'y') + "…\"");
  EXPECT_EQ(in_quotes(std::string(100, '\x80')), "\"…\"");
}

}  // namespace
}  // namespace attnmux::io::testing
