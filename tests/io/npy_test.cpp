// SPDX-License-Identifier: Apache-2.0
#include <io/npy.h>

#include "io_testing.h"

namespace attnmux::io::testing {
namespace {

/// A file of version `major`.0 with this header and data.
std::string file_of(const std::string& header, const std::string& data = "", int major = 1) {
  std::string text = "\x93NUMPY";
  text += {static_cast<char>(major), '\0'};
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) text += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return text + header + data;
}

std::string dict(const std::string& descr, const std::string& order, const std::string& shape) {
  return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}

TEST(Npy, ReadsEveryDtypeThatNumpyWrites) {
  const std::vector<int64_t> shape = {2, 3, 4};
  for (const char* name : {"f8", "f4", "f2", "b1", "u1", "i4"}) {
    const NamedTensor tensor = load_npy(golden(name + std::string(".npy")));
    EXPECT_EQ(tensor.name, name);
    EXPECT_EQ(tensor.shape, shape);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % 8, 0u);
  }
  expect_golden_values<double>(load_npy(golden("f8.npy")));
  expect_golden_values<float>(load_npy(golden("f4.npy")));
  expect_golden_values_16(load_npy(golden("f2.npy")), 5);
  expect_golden_values<bool>(load_npy(golden("b1.npy")));
  expect_golden_values<uint8_t>(load_npy(golden("u1.npy")));
  expect_golden_values<int32_t>(load_npy(golden("i4.npy")));
}

TEST(Npy, ReadsEveryVersionAndShape) {
  for (const char* name : {"version2", "version3", "scalar", "vector", "empty"}) {
    expect_golden_values<float>(load_npy(golden(name + std::string(".npy"))));
  }
  EXPECT_EQ(load_npy(golden("version3.npy")).shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(load_npy(golden("scalar.npy")).shape, std::vector<int64_t>{});
  EXPECT_EQ(load_npy(golden("empty.npy")).shape, (std::vector<int64_t>{0, 3}));
}

TEST(Npy, BringsFortranOrderIntoCOrder) {
  const NamedTensor tensor = load_npy(golden("fortran.npy"));
  EXPECT_EQ(tensor.shape, (std::vector<int64_t>{2, 3, 4}));
  expect_golden_values<float>(tensor);
  expect_golden_values<int32_t>(load_npy(golden("fortran_i4.npy")));
  const std::string empty = file_of(dict("'<f4'", "True", "(0, 3)"));
  EXPECT_EQ(parse_npy(bytes_of(empty), "f").bytes, 0u);
}

TEST(Npy, WritesTheBytesOfNumpy) {
  for (const char* name : {"f8", "f4", "f2", "b1", "u1", "i4", "scalar", "vector", "empty"}) {
    const std::string path = golden(name + std::string(".npy"));
    EXPECT_EQ(text_of(format_npy(load_npy(path), "memory")), text_of(read_file(path).span())) << name;
  }
}

TEST(Npy, RoundTripsThroughAFile) {
  const std::vector<double> x = {1e300, -0.0, 5e-324, 2.5, -7, 0};
  const std::string path = temporary("x.npy");
  save_npy(path, borrow_tensor("x", ATTNMUX_FP64, {3, 2}, x.data()));
  const NamedTensor tensor = load_npy(path);
  EXPECT_EQ(tensor.shape, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(std::memcmp(tensor.data, x.data(), tensor.bytes), 0);
}

TEST(Npy, AcceptsOtherSpellingsOfTheDict) {
  const float value = 1.25f;
  const std::string data(reinterpret_cast<const char*>(&value), 4);
  for (const char* header : {R"({"shape":(1,),"descr":"<f4","fortran_order":False})",
                             "{'shape':(1,1),\n'fortran_order':True,'descr':'<f4'}   \n",
                             "{ 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 1 , ) , }",
                             "{'descr':'<f4','fortran_order':False,'shape':()}"}) {
    for (const int major : {1, 2, 3}) {
      const NamedTensor tensor = parse_npy(bytes_of(file_of(header, data, major)), "f");
      EXPECT_EQ(tensor.values<float>()[0], 1.25f) << header;  // headers of any length: misaligned data is copied
    }
  }
}

TEST(Npy, RefusesToWriteWhatNumpyDoesNotHave) {
  const uint16_t x[2] = {};
  const std::string message =
      message_of([&] { (void)format_npy(borrow_tensor("q", ATTNMUX_BF16, {2}, x), "out.npy"); });
  EXPECT_EQ(message,
            "out.npy: tensor \"q\" has dtype BF16, which .npy files do not have; a name that ends in .safetensors is "
            "accepted");
  NamedTensor bad = borrow_tensor("q", ATTNMUX_FP16, {2}, x);
  bad.bytes = 2;
  EXPECT_NE(message_of([&] { (void)format_npy(bad, "f"); }).find("shape (2,) does not fit 2 bytes of F16"),
            std::string::npos);
}

struct Lie {
  const char* name;
  std::string bytes;
  const char* told;  // a part of the message
};

const std::string kGood = dict("'<f4'", "False", "(1,)");

const Lie kLies[] = {
    {"nothing", "", "does not start with \\x93NUMPY and a version: not an .npy file, or cut short after 0 bytes"},
    {"only_magic", "\x93NUMPY", "cut short after 6 bytes"},
    {"text_file", "1.0 2.0 3.0\n", "does not start with \\x93NUMPY"},
    {"zip", "PK\3\4 and more of it", "is a zip archive, such as numpy.savez writes"},
    {"version_0", file_of(kGood, "1234", 0), "npy version 0.0 is not accepted; accepted are 1.0, 2.0 and 3.0"},
    {"version_4", file_of(kGood, "1234", 4), "npy version 4.0 is not accepted"},
    {"version_1_1", std::string("\x93NUMPY\1\1\0\0", 10), "npy version 1.1 is not accepted"},
    {"no_header_length", std::string("\x93NUMPY\1\0\1", 9), "is cut short within the header length"},
    {"no_header_length_2", std::string("\x93NUMPY\2\0\1\0\0", 11), "is cut short within the header length"},
    {"header_past_end", file_of(kGood).substr(0, 40), "but only 30 follow: the file is cut short"},
    {"header_4_gib", std::string("\x93NUMPY\2\0\xFF\xFF\xFF\xFF{}", 14),
     "header length is 4294967295 bytes, but only 2"},
    {"empty_header", file_of(""), "has to be a dict that starts with {; there is the end"},
    {"list", file_of("[1]"), "has to be a dict that starts with {; there is \"[1]\""},
    {"empty_dict", file_of("{}"), "the key descr is missing"},
    {"no_shape", file_of("{'descr': '<f4', 'fortran_order': False}", "1234"), "the key shape is missing"},
    {"no_order", file_of("{'descr': '<f4', 'shape': (1,)}", "1234"), "the key fortran_order is missing"},
    {"unknown_key", file_of("{'descr': '<f4', 'order': 'C'}", "1234"), "unknown key \"order\"; accepted are descr,"},
    {"key_twice", file_of("{'descr': '<f4', 'descr': '<f8'}", "1234"), "the key \"descr\" is given twice"},
    {"shape_twice", file_of("{'shape': (1,), 'shape': (1,)}", "1234"), "the key \"shape\" is given twice"},
    {"unclosed", file_of("{'descr': '<f4'"), "a , or } has to follow the value; there is the end"},
    {"unclosed_text", file_of("{'descr: 1}"), "the text in quotes has no end"},
    {"mixed_quotes", file_of("{'descr\": 1}"), "the text in quotes has no end"},
    {"no_colon", file_of("{'descr' '<f4'}"), "a : has to follow the key"},
    {"bare_key", file_of("{descr: '<f4'}"), "expected a key in quotes"},
    {"two_commas", file_of("{'descr': '<f4',, }"), "expected a key in quotes"},
    {"after_dict", file_of(kGood + "x", "1234"), "nothing may follow the dict; there is \"x\""},
    {"two_dicts", file_of(kGood + kGood, "1234"), "nothing may follow the dict"},
    {"zero_byte", file_of(std::string("{\0}", 3)), "expected a key in quotes; there is \"\\x00}\""},
    {"escape", file_of("{'des\\x63r': '<f4'}"), "escapes are not accepted"},
    {"descr_number", file_of(dict("4", "False", "(1,)"), "1234"), "expected a dtype in quotes, such as '<f4'"},
    {"descr_list", file_of(dict("[('a', '<f4')]", "False", "(1,)"), "1234"), "arrays of records are not accepted"},
    {"descr_empty", file_of(dict("''", "False", "(1,)"), "1234"),
     "dtype \"\" is not accepted; accepted are '<f8', '<f4'"},
    {"descr_unknown", file_of(dict("'<f3'", "False", "(1,)"), "1234"), "dtype \"<f3\" is not accepted"},
    {"descr_object", file_of(dict("'|O'", "False", "(1,)"), "1234"), "dtype \"|O\" is not accepted"},
    {"descr_native", file_of(dict("'=f4'", "False", "(1,)"), "1234"), "dtype \"=f4\" is not accepted"},
    {"bfloat16", file_of(dict("'bfloat16'", "False", "(1,)"), "12"), "looks like bfloat16, which numpy does not have"},
    {"order_number", file_of(dict("'<f4'", "0", "(1,)"), "1234"),
     "fortran_order has to be True or False; there is \"0, "},
    {"order_lower", file_of(dict("'<f4'", "false", "(1,)"), "1234"), "fortran_order has to be True or False"},
    {"shape_list", file_of(dict("'<f4'", "False", "[1]"), "1234"), "shape has to be a tuple"},
    {"shape_number", file_of(dict("'<f4'", "False", "(1)"), "1234"), "a tuple of one is written (n,)"},
    {"shape_negative", file_of(dict("'<f4'", "False", "(-1,)"), "1234"),
     "whole number from 0 to 2^63-1; there is \"-1,)"},
    {"shape_plus", file_of(dict("'<f4'", "False", "(+1,)"), "1234"), "an extent of shape has to be a whole number"},
    {"shape_fraction", file_of(dict("'<f4'", "False", "(1.0,)"), "1234"), "a , has to stand between the extents"},
    {"shape_long", file_of(dict("'<f4'", "False", "(1L,)"), "1234"), "a , has to stand between the extents"},
    {"shape_hex", file_of(dict("'<f4'", "False", "(0x1,)"), "1234"), "a , has to stand between the extents"},
    {"shape_text", file_of(dict("'<f4'", "False", "('1',)"), "1234"), "an extent of shape has to be a whole number"},
    {"shape_two_commas", file_of(dict("'<f4'", "False", "(1,,)"), "1234"),
     "an extent of shape has to be a whole number"},
    {"shape_unclosed", file_of("{'shape': (1,"), "an extent of shape has to be a whole number"},
    {"shape_2_63", file_of(dict("'<f4'", "False", "(9223372036854775808,)"), "1234"), "2^63-1; there is \"92233720368"},
    {"shape_rank_9", file_of(dict("'|u1'", "False", "(1,1,1,1,1,1,1,1,1)"), "1"), "more than 8 dimensions"},
    {"overflow", file_of(dict("'<f4'", "False", "(4294967296, 4294967296)")), "needs 2^63 or more"},
    {"overflow_in_bytes", file_of(dict("'<f8'", "False", "(2305843009213693953,)"), "12345678"),
     "holds 8 bytes of data, but \"<f8\" of shape (2305843009213693953,) needs 2305843009213693953 × 8"},
    {"no_data", file_of(kGood), "holds 0 bytes of data, but \"<f4\" of shape (1,) needs 1 × 4"},
    {"too_little_data", file_of(kGood, "123"), "holds 3 bytes of data"},
    {"too_much_data", file_of(kGood, "12345"), "holds 5 bytes of data"},
    {"data_of_empty", file_of(dict("'<f4'", "True", "(0, 9223372036854775807)"), "1"), "holds 1 bytes of data"},
};

class NpyLies : public ::testing::TestWithParam<Lie> {};

TEST_P(NpyLies, AreRefusedWithAReason) {
  const std::string message = message_of([] { (void)parse_npy(bytes_of(GetParam().bytes), "some/file.npy"); });
  EXPECT_NE(message.find(GetParam().told), std::string::npos) << message;
  EXPECT_EQ(message.rfind("some/file.npy: ", 0), 0u) << message;
  EXPECT_LT(message.size(), 400u) << message;
}

INSTANTIATE_TEST_SUITE_P(All, NpyLies, ::testing::ValuesIn(kLies),
                         [](const auto& lie) { return std::string(lie.param.name); });

TEST(NpyLies, DtypesOfNumpyThatCannotBeUsedAreNamed) {
  const auto message = [](const std::string& name) { return message_of([&] { (void)load_npy(golden(name)); }); };
  EXPECT_NE(message("big_endian.npy").find("It is big-endian"), std::string::npos);
  EXPECT_NE(message("record.npy").find("arrays of records"), std::string::npos);
  EXPECT_NE(message("void2.npy").find("looks like bfloat16"), std::string::npos);
}

TEST(NpyLies, DtypesOfNumpyThatCanOnlyBeListed) {
  const TensorFile i8 = load_tensor_file(golden("i8.npy"));
  const NamedTensor& tensor = i8.tensors().front();
  EXPECT_EQ(tensor.dtype, 0);
  EXPECT_EQ(tensor.file_dtype, "<i8");
  EXPECT_EQ(tensor.shape, std::vector<int64_t>{2});
  EXPECT_EQ(tensor.bytes, 16u);
  EXPECT_NE(message_of([&] { (void)i8.at("i8"); }).find("\"i8\" has dtype <i8; accepted are F64,"), std::string::npos);
  EXPECT_NE(message_of([&] { (void)format_npy(tensor, "f"); }).find("dtype"), std::string::npos);
  EXPECT_EQ(load_npy(golden("complex.npy")).file_dtype, "<c8");
}

TEST(NpyLies, EveryPrefixOfAFileIsRefused) {
  for (const char* name : {"f4.npy", "version3.npy", "fortran.npy"}) {
    const std::string whole = text_of(read_file(golden(name)).span());
    for (size_t n = 0; n < whole.size(); ++n) {
      EXPECT_THROW((void)parse_npy(bytes_of(whole.substr(0, n)), "f"), FileError) << name << ' ' << n << " bytes";
    }
  }
}

}  // namespace
}  // namespace attnmux::io::testing
