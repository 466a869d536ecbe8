// SPDX-License-Identifier: Apache-2.0
// Files that lie. Each has to be refused with a message that names the problem.
#include "io_testing.h"

namespace attnmux::io::testing {
namespace {

std::string length_prefix(uint64_t n) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(n >> (8 * i) & 0xFF);
  return text;
}

std::string file_of(const std::string& header, const std::string& data = "") {
  return length_prefix(header.size()) + header + data;
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"q":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

std::string repeated(const std::string& text, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += text;
  return all;
}

struct Lie {
  const char* name;
  std::string bytes;
  const char* told;  // a part of the message
};

const std::string kF32 = R"({"dtype":"F32","shape":[1],"data_offsets":)";

const Lie kLies[] = {
    {"nothing", "", "is 0 bytes long"},
    {"seven_bytes", length_prefix(2).substr(0, 7), "is 7 bytes long"},
    {"text_file", "hello, I am a text file, not tensors", "Is it a .safetensors file?"},
    {"length_over_limit", length_prefix(100'000'001) + "{}", "header length is 100000001 bytes; accepted are at most"},
    {"length_all_ones", std::string(8, '\xFF') + "{}", "header length is 18446744073709551615 bytes"},
    {"length_sign_bit", length_prefix(uint64_t{1} << 63) + "{}", "accepted are at most"},
    {"length_past_end", length_prefix(3) + "{}", "header length is 3 bytes, but only 2 follow"},
    {"cut_in_header", file_of(tensor("\"F32\"", "[1]", "[0,4]")).substr(0, 30), "the file is cut short"},
    {"empty_header", file_of(""), "does not start with {"},
    {"leading_space", file_of(" {}"), "does not start with {"},
    {"byte_order_mark", file_of("\xEF\xBB\xBF{}"), "does not start with {"},
    {"array", file_of("[]"), "does not start with {"},
    {"unclosed", file_of("{"), "not valid JSON at byte"},
    {"unclosed_text", file_of("{\"q"), "not valid JSON at byte"},
    {"trailing_text", file_of("{} x"), "not valid JSON at byte"},
    {"two_objects", file_of("{}{}"), "not valid JSON at byte"},
    {"trailing_comma", file_of("{\"q\":{},}"), "has no field dtype"},
    {"comment", file_of("{/* */}"), "not valid JSON at byte"},
    {"single_quotes", file_of("{'q':1}"), "not valid JSON at byte"},
    {"zero_byte", file_of(std::string("{}\0", 3)), "byte 2 is zero"},
    {"zero_byte_hides_text", file_of(std::string("{}\0{\"q\":1}", 10)), "byte 2 is zero"},
    {"not_utf8", file_of("{\"\xFF\":1}"), "not valid JSON at byte"},
    {"lone_surrogate", file_of("{\"\\ud800\":1}"), "not valid JSON at byte"},
    {"tensor_is_number", file_of("{\"q\":1}"), "\"q\": a tensor has to be an object"},
    {"tensor_is_null", file_of("{\"q\":null}"),
     "a tensor has to be an object with dtype, shape and data_offsets, not null"},
    {"tensor_is_array", file_of("{\"q\":[]}"), "not an array"},
    {"tensor_is_bool", file_of("{\"q\":true}"), "not true"},
    {"deep", file_of("{\"q\":{\"shape\":" + repeated("[", 100'000)), "whole numbers from 0 to 2^63-1, not an array"},
    {"no_dtype", file_of(R"({"q":{"shape":[],"data_offsets":[0,0]}})"), "tensor \"q\" has no field dtype"},
    {"no_shape", file_of(R"({"q":{"dtype":"U8","data_offsets":[0,0]}})"), "has no field shape"},
    {"no_offsets", file_of(R"({"q":{"dtype":"U8","shape":[]}})"), "has no field data_offsets"},
    {"unknown_field", file_of(R"({"q":{"dtype":"U8","strides":[1]}})"),
     "unknown field \"strides\"; accepted are dtype,"},
    {"field_twice", file_of(R"({"q":{"dtype":"U8","dtype":"F32"}})"), "gives dtype twice"},
    {"shape_twice", file_of(R"({"q":{"shape":[1],"shape":[1]}})"), "gives shape twice"},
    {"name_twice", file_of("{\"q\":" + kF32 + "[0,4]},\"q\":" + kF32 + "[0,4]}}", "1234"), "name \"q\" is given twice"},
    {"name_twice_escaped", file_of("{\"q\":" + kF32 + "[0,4]},\"\\u0071\":" + kF32 + "[0,4]}}", "1234"), "given twice"},
    {"metadata_twice", file_of(R"({"__metadata__":{},"__metadata__":{}})"), "\"__metadata__\" is given twice"},
    {"metadata_key_twice", file_of(R"({"__metadata__":{"a":"1","a":"2"}})"), "__metadata__ gives \"a\" twice"},
    {"metadata_number", file_of(R"({"__metadata__":{"a":1}})"),
     "__metadata__ may hold nothing but text, not the number 1"},
    {"metadata_object", file_of(R"({"__metadata__":{"a":{}}})"), "nothing but text, not an object"},
    {"metadata_text", file_of(R"({"__metadata__":"a"})"), "not the text \"a\""},
    {"dtype_number", file_of(tensor("1", "[1]", "[0,4]"), "1234"), "dtype has to be text, not the number 1"},
    {"dtype_unknown", file_of(tensor("\"F31\"", "[1]", "[0,4]"), "1234"), "unknown dtype \"F31\"; known are BOOL,"},
    {"dtype_lower_case", file_of(tensor("\"f32\"", "[1]", "[0,4]"), "1234"), "unknown dtype \"f32\""},
    {"dtype_empty", file_of(tensor("\"\"", "[1]", "[0,4]"), "1234"), "unknown dtype \"\""},
    {"shape_text", file_of(tensor("\"F32\"", "\"1\"", "[0,4]"), "1234"), "shape has to be an array"},
    {"shape_negative", file_of(tensor("\"F32\"", "[-1]", "[0,4]"), "1234"), "2^63-1, not the number -1"},
    {"shape_minus_zero", file_of(tensor("\"F32\"", "[-0]", "[0,0]")), "2^63-1, not the number"},
    {"shape_fraction", file_of(tensor("\"F32\"", "[1.0]", "[0,4]"), "1234"), "not the number \"1.0\""},
    {"shape_exponent", file_of(tensor("\"F32\"", "[1e0]", "[0,4]"), "1234"), "not the number \"1e0\""},
    {"shape_2_63", file_of(tensor("\"F32\"", "[9223372036854775808]", "[0,4]"), "1234"),
     "not the number 9223372036854775808"},
    {"shape_2_64", file_of(tensor("\"F32\"", "[18446744073709551616]", "[0,4]"), "1234"),
     "not the number \"18446744073709551616"},
    {"shape_rank_9", file_of(tensor("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), "1"), "more than 8 dimensions"},
    {"product_overflows", file_of(tensor("\"F32\"", "[4294967296,4294967296]", "[0,0]")),
     "too large, or no whole number"},
    {"product_wraps_to_size", file_of(tensor("\"F32\"", "[4611686018427387905]", "[0,4]"), "1234"), "too large"},
    {"half_a_byte", file_of(tensor("\"F4\"", "[3]", "[0,1]"), "1"),
     "F4 of shape (3,) is too large, or no whole number of bytes"},
    {"offsets_short", file_of(tensor("\"F32\"", "[1]", "[0]"), "1234"), "data_offsets holds 1 numbers; accepted are 2"},
    {"offsets_none", file_of(tensor("\"F32\"", "[0]", "[]")), "data_offsets holds 0 numbers"},
    {"offsets_long", file_of(tensor("\"F32\"", "[1]", "[0,4,8]"), "1234"), "data_offsets holds 3 numbers"},
    {"offsets_object", file_of(tensor("\"F32\"", "[1]", "{}"), "1234"), "data_offsets has to be an array"},
    {"offsets_text", file_of(tensor("\"F32\"", "[1]", "[\"0\",4]"), "1234"), "not the text \"0\""},
    {"offsets_negative", file_of(tensor("\"F32\"", "[1]", "[-4,0]"), "1234"), "not the number -4"},
    {"offsets_fall", file_of(tensor("\"F32\"", "[1]", "[4,0]"), "1234"), "data_offsets [4, 0] must rise"},
    {"offsets_past_end", file_of(tensor("\"F32\"", "[2]", "[0,8]"), "1234567"),
     "lie within the file's data of 7 bytes"},
    {"offsets_far_past_end", file_of(tensor("\"U8\"", "[1]", "[18446744073709551614,18446744073709551615]"), "1"),
     "lie within"},
    {"size_too_small", file_of(tensor("\"F32\"", "[2,3]", "[0,12]"), "123456789012"),
     "data_offsets [0, 12] hold 12 bytes, but F32 of shape (2, 3) needs 24"},
    {"size_too_large", file_of(tensor("\"F32\"", "[1]", "[0,8]"), "12345678"),
     "hold 8 bytes, but F32 of shape (1,) needs 4"},
    {"size_of_unusable", file_of(tensor("\"I64\"", "[1]", "[0,4]"), "1234"), "I64 of shape (1,) needs 8"},
    {"data_left_over", file_of(tensor("\"F32\"", "[1]", "[0,4]"), "12345"),
     "the last 1 of 5 bytes of data belong to no tensor"},
    {"data_without_tensors", file_of("{}", "1234"), "the last 4 of 4 bytes"},
    {"starts_with_hole", file_of(tensor("\"F32\"", "[1]", "[1,5]"), "12345"), "leave a hole: bytes 0 to 1"},
    {"hole", file_of("{\"a\":" + kF32 + "[0,4]},\"b\":" + kF32 + "[8,12]}}", "123456789012"),
     "leave a hole: bytes 4 to 8"},
    {"overlap", file_of("{\"a\":" + kF32 + "[0,4]},\"b\":" + kF32 + "[2,6]}}", "123456"),
     "\"b\": data_offsets [2, 6] overlap"},
    {"same_bytes", file_of("{\"a\":" + kF32 + "[0,4]},\"b\":" + kF32 + "[0,4]}}", "1234"), "overlap the tensor before"},
    {"control_characters", file_of("{\"\\u001b[2J\":1}"), "\"\\x1b[2J\": a tensor has to be"},
    {"long_name", file_of("{\"" + repeated("é", 1000) + "\":1}"), "é…\": a tensor has to be"},
};

class SafetensorsLies : public ::testing::TestWithParam<Lie> {};

TEST_P(SafetensorsLies, AreRefusedWithAReason) {
  const std::string message =
      message_of([] { (void)parse_safetensors(bytes_of(GetParam().bytes), "some/file.safetensors"); });
  EXPECT_NE(message.find(GetParam().told), std::string::npos) << message;
  EXPECT_EQ(message.rfind("some/file.safetensors: ", 0), 0u) << message;
  EXPECT_LT(message.size(), 500u) << message;
}

INSTANTIATE_TEST_SUITE_P(All, SafetensorsLies, ::testing::ValuesIn(kLies),
                         [](const auto& lie) { return std::string(lie.param.name); });

TEST(SafetensorsLies, EveryPrefixOfAFileIsRefused) {
  const std::string whole = text_of(read_file(golden("all_dtypes.safetensors")).span());
  for (size_t n = 0; n < whole.size(); ++n) {
    EXPECT_THROW((void)parse_safetensors(bytes_of(whole.substr(0, n)), "f"), FileError) << n << " bytes";
  }
}

TEST(SafetensorsLies, EveryChangedByteIsReadInBoundsOrRefused) {
  std::string text = text_of(read_file(golden("all_dtypes.safetensors")).span());
  int refused = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char was = text[i];
    for (const char now : {'\0', '\xFF', '0', '9', '"', '[', '}', ',', static_cast<char>(was ^ 1)}) {
      text[i] = now;
      try {
        const TensorFile file = parse_safetensors(bytes_of(text), "f");
        unsigned sum = 0;
        for (const NamedTensor& tensor : file.tensors()) {
          for (size_t b = 0; b < tensor.bytes; ++b) sum += static_cast<unsigned>(tensor.data[b]);
        }
        EXPECT_LE(sum, 255u * text.size());
      } catch (const FileError&) {
        ++refused;
      }
    }
    text[i] = was;
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace attnmux::io::testing
