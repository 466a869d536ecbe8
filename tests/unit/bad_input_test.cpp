// SPDX-License-Identifier: Apache-2.0
// Every wrong argument: the message starts with "[attention]", names the argument, its value and what is accepted, and
// every verb says the same.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "support/bad_call.h"

namespace attnmux {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

using test::Call;

struct Row {
  const char* name;
  std::function<void(Call&)> spoil;
  std::vector<std::string> says;  // argument, value, what is accepted
};

void PrintTo(const Row& row, std::ostream* stream) { *stream << row.name; }

class BadInput : public ::testing::TestWithParam<Row> {};

std::string row_name(const ::testing::TestParamInfo<Row>& info) { return info.param.name; }

TEST_P(BadInput, IsRefusedByEveryVerb) {
  Call call;
  ASSERT_TRUE(call.attention().ok()) << call.attention().message();
  std::fill(call.out.begin(), call.out.end(), -7.f);
  GetParam().spoil(call);
  const Status ways[] = {call.attention(), call.plan(), call.explain()};
  for (const Status& status : ways) {
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.message();
    EXPECT_TRUE(status.message().starts_with("[attention] ")) << status.message();
    for (const std::string& word : GetParam().says) {
      EXPECT_NE(status.message().find(word), std::string_view::npos)
          << "no \"" << word << "\" in: " << status.message();
    }
    EXPECT_EQ(status.message(), ways[0].message());
  }
  for (const float x : call.out) ASSERT_EQ(x, -7.f) << "a refused call wrote to out";
}

INSTANTIATE_TEST_SUITE_P(
    Tensors, BadInput,
    ::testing::Values(
        Row{"q_rank", [](Call& c) { c.tq.ndim = 3; }, {"q", "(2, 4, 6)", "3", "(B, Sq, Hq, D)"}},
        Row{"k_rank", [](Call& c) { c.tk.ndim = 2; }, {"k", "(2, 5)", "2", "(B, Skv, Hkv, D)"}},
        Row{"v_rank", [](Call& c) { c.tv.ndim = 0; }, {"v", "()", "0", "(B, Skv, Hkv, Dv)"}},
        Row{"out_rank", [](Call& c) { c.tout.ndim = 3; }, {"out", "(2, 4, 6)", "3", "(B, Sq, Hq, Dv)"}},
        Row{"rank_5", [](Call& c) { c.tq.ndim = 5; }, {"q", "5", "up to 4"}},
        Row{"rank_negative", [](Call& c) { c.tk.ndim = -3; }, {"k", "-3", "up to 4"}},
        Row{"more_strides_than_extents",
            [](Call& c) { c.tq = TensorView(c.q.data(), Dtype::kFp32, {2, 4, 6, 8}, {192, 48, 8}).c(); },
            {"q", "strides", "extents"}},
        Row{"batch_of_k", [](Call& c) { c.tk.shape[0] = 1; }, {"k", "(1, 5, 2, 8)", "1", "2"}},
        Row{"batch_of_v", [](Call& c) { c.tv.shape[0] = 1; }, {"v", "(1, 5, 2, 8)", "1", "2"}},
        Row{"keys_without_values", [](Call& c) { c.tv.shape[1] = 4; }, {"v", "(2, 4, 2, 8)", "4", "5"}},
        Row{"heads_of_v", [](Call& c) { c.tv.shape[2] = 1; }, {"v", "(2, 5, 1, 8)", "1", "2", "heads of k"}},
        Row{"head_dim_of_k", [](Call& c) { c.tk.shape[3] = 7; }, {"k", "(2, 5, 2, 7)", "7", "8", "head_dim of q"}},
        Row{"batch_of_out", [](Call& c) { c.tout.shape[0] = 1; }, {"out", "(1, 4, 6, 8)", "1", "2"}},
        Row{"rows_of_out", [](Call& c) { c.tout.shape[1] = 3; }, {"out", "(2, 3, 6, 8)", "3", "4"}},
        Row{"heads_of_out", [](Call& c) { c.tout.shape[2] = 2; }, {"out", "(2, 4, 2, 8)", "2", "6"}},
        Row{"head_dim_of_out",
            [](Call& c) { c.tout.shape[3] = 4; },
            {"out", "(2, 4, 6, 4)", "4", "8", "head_dim of v"}},
        Row{"heads_not_a_multiple",
            [](Call& c) { c.tq.shape[2] = c.tout.shape[2] = 5; },
            {"q", "5", "k", "2", "multiple"}},
        Row{"no_key_heads", [](Call& c) { c.tk.shape[2] = c.tv.shape[2] = 0; }, {"q", "6", "k", "0", "multiple"}},
        Row{"head_dim_0", [](Call& c) { c.tq.shape[3] = c.tk.shape[3] = 0; }, {"head_dim of q", "0", "1 or more"}},
        Row{"head_dim_of_v_0",
            [](Call& c) { c.tv.shape[3] = c.tout.shape[3] = 0; },
            {"head_dim of v", "0", "1 or more"}},
        Row{"negative_extent", [](Call& c) { c.tq.shape[1] = -4; }, {"q", "shape[1]", "-4", "0 or more"}},
        Row{"overflowing_sizes",
            [](Call& c) { c.tq.shape[0] = int64_t{1} << 40, c.tq.shape[1] = int64_t{1} << 40; },
            {"q", "1099511627776", "overflow"}},
        Row{"overflowing_sizes_that_are_empty",
            [](Call& c) { c.tq.shape[0] = c.tq.shape[1] = int64_t{1} << 40, c.tq.shape[2] = 0; },
            {"q", "1099511627776", "overflow"}},
        Row{"overflowing_strides", [](Call& c) { c.tk.strides[0] = int64_t{1} << 62; }, {"k", "strides", "64 bits"}},
        Row{"overflowing_negative_strides", [](Call& c) { c.tk.strides[0] = INT64_MIN; }, {"k", "strides", "64 bits"}},
        Row{"last_stride_of_q", [](Call& c) { c.tq.strides[3] = 2; }, {"q", "strides[3]", "2", "contiguous"}},
        Row{"last_stride_of_k", [](Call& c) { c.tk.strides[3] = 0; }, {"k", "strides[3]", "0", "contiguous"}},
        Row{"last_stride_of_v", [](Call& c) { c.tv.strides[3] = -1; }, {"v", "strides[3]", "-1", "contiguous"}},
        Row{"last_stride_of_out", [](Call& c) { c.tout.strides[3] = 2; }, {"out", "strides[3]", "2", "contiguous"}},
        Row{"out_overlaps_itself_zero",
            [](Call& c) { c.tout.strides[0] = 0; },
            {"out", "strides[0]", "0", "share memory"}},
        Row{"out_overlaps_itself_short", [](Call& c) { c.tout.strides[1] = 40; }, {"out", "strides", "share memory"}},
        Row{"out_backwards", [](Call& c) { c.tout.strides[1] = -48; }, {"out", "strides[1]", "-48", "positive"}},
        Row{"dtype_of_k", [](Call& c) { c.tk.dtype = ATTNMUX_FP16; }, {"k", "dtype", "fp16", "fp32"}},
        Row{"dtype_of_v", [](Call& c) { c.tv.dtype = ATTNMUX_BF16; }, {"v", "dtype", "bf16", "fp32"}},
        Row{"dtype_of_out", [](Call& c) { c.tout.dtype = ATTNMUX_FP16; }, {"out", "dtype", "fp16", "fp32"}},
        Row{"dtype_unknown", [](Call& c) { c.tq.dtype = 99; }, {"q", "dtype", "99", "fp32"}},
        Row{"dtype_none", [](Call& c) { c.tv.dtype = 0; }, {"v", "dtype", "0"}},
        Row{"dtype_not_a_number",
            [](Call& c) { c.tq.dtype = c.tk.dtype = c.tv.dtype = c.tout.dtype = ATTNMUX_INT32; },
            {"q", "dtype", "int32", "fp32, fp16, bf16"}},
        Row{"device_of_k", [](Call& c) { c.tk.device_type = ATTNMUX_CUDA; }, {"k", "cuda", "cpu", "one device"}},
        Row{"device_of_out", [](Call& c) { c.tout.device_type = ATTNMUX_CUDA; }, {"out", "cuda", "cpu", "one device"}},
        Row{"device_unknown", [](Call& c) { c.tq.device_type = 77; }, {"q", "device_type", "77", "cpu", "cuda"}},
        Row{"device_id_on_the_cpu", [](Call& c) { c.tq.device_id = 3; }, {"q", "device_id", "3", "0"}},
        Row{"device_id_negative", [](Call& c) { c.tv.device_id = -1; }, {"v", "device_id", "-1"}},
        Row{"misaligned",
            [](Call& c) { c.tk.data = reinterpret_cast<char*>(c.k.data()) + 2, c.tk.shape[1] = c.tv.shape[1] = 4; },
            {"k", "aligned", "4"}}),
    row_name);

INSTANTIATE_TEST_SUITE_P(
    Overlaps, BadInput,
    ::testing::Values(
        Row{"out_is_q", [](Call& c) { c.tout.data = c.tq.data; }, {"out", "overlaps", "q"}},
        Row{"out_is_k",
            [](Call& c) { c.tk = TensorView(c.out.data(), {2, 4, 2, 8}).c(), c.tv.shape[1] = 4; },
            {"out", "overlaps", "k"}},
        Row{"out_touches_v_by_one",
            [](Call& c) { c.tv.data = c.out.data() + c.out.size() - 1; },
            {"out", "overlaps", "v"}},
        Row{"lse_is_out",
            [](Call& c) { c.o.set |= ATTNMUX_LSE, c.o.lse = MutableTensorView(c.out.data(), {2, 6, 4}).c(); },
            {"out", "overlaps", "lse"}},
        Row{"lse_is_q",
            [](Call& c) { c.o.set |= ATTNMUX_LSE, c.o.lse = MutableTensorView(c.q.data() + 100, {2, 6, 4}).c(); },
            {"lse", "overlaps", "q"}},
        Row{"out_is_bias",
            [](Call& c) { c.o.set |= ATTNMUX_BIAS, c.o.bias = TensorView(c.out.data() + 3, {5}).c(); },
            {"out", "overlaps", "bias"}},
        Row{"out_is_dense",
            [](Call& c) {
              c.o.set |= ATTNMUX_MASK_DENSE;
              c.o.dense_mask = TensorView(reinterpret_cast<uint8_t*>(c.out.data()), {5}).c();
            },
            {"out", "overlaps", "mask.dense"}},
        Row{"lse_is_key_lengths",
            [](Call& c) {
              c.lse[0] = c.lse[1] = 0;  // read as lengths of 0
              c.o.set |= ATTNMUX_LSE | ATTNMUX_MASK_KEY_LENGTHS;
              c.o.lse = MutableTensorView(c.lse.data(), {2, 6, 4}).c();
              c.o.key_lengths = TensorView(c.lse.data(), Dtype::kInt32, {2}).c();
            },
            {"lse", "overlaps", "mask.key_lengths"}}),
    row_name);

INSTANTIATE_TEST_SUITE_P(
    Numbers, BadInput,
    ::testing::Values(
        Row{"scale_nan", [](Call& c) { c.o.set |= ATTNMUX_SCALE, c.o.scale = kNan; }, {"scale", "nan", "finite"}},
        Row{"scale_inf", [](Call& c) { c.o.set |= ATTNMUX_SCALE, c.o.scale = -kInf; }, {"scale", "-inf", "finite"}},
        Row{"scale_unset", [](Call& c) { c.o.scale = 2.5; }, {"scale", "2.5", "ATTNMUX_SCALE"}},
        Row{"softcap_negative",
            [](Call& c) { c.o.set |= ATTNMUX_SOFTCAP, c.o.softcap = -1.5; },
            {"softcap", "-1.5", "0"}},
        Row{"softcap_nan", [](Call& c) { c.o.set |= ATTNMUX_SOFTCAP, c.o.softcap = kNan; }, {"softcap", "nan"}},
        Row{"softcap_inf", [](Call& c) { c.o.set |= ATTNMUX_SOFTCAP, c.o.softcap = kInf; }, {"softcap", "inf"}},
        Row{"softcap_unset", [](Call& c) { c.o.softcap = 30; }, {"softcap", "30", "ATTNMUX_SOFTCAP"}},
        Row{"dropout_1", [](Call& c) { c.o.set |= ATTNMUX_DROPOUT, c.o.dropout_p = 1; }, {"dropout.p", "1", "below 1"}},
        Row{"dropout_negative",
            [](Call& c) { c.o.set |= ATTNMUX_DROPOUT, c.o.dropout_p = -0.25; },
            {"dropout.p", "-0.25", "0 or more"}},
        Row{"dropout_nan", [](Call& c) { c.o.set |= ATTNMUX_DROPOUT, c.o.dropout_p = kNan; }, {"dropout.p", "nan"}},
        Row{"dropout_without_seed", [](Call& c) { c.o.dropout_p = 0.5; }, {"dropout.p", "0.5", "seed"}},
        Row{"dropout_offset",
            [](Call& c) { c.o.set |= ATTNMUX_DROPOUT, c.o.dropout_p = 0.5, c.o.dropout_offset = uint64_t{1} << 32; },
            {"dropout.offset", "4294967296", "4294967295"}}),
    row_name);

INSTANTIATE_TEST_SUITE_P(
    Masks, BadInput,
    ::testing::Values(
        Row{"two_causal_masks",
            [](Call& c) { c.o.set |= ATTNMUX_MASK_CAUSAL, c.o.conflicts = ATTNMUX_MASK_CAUSAL, c.o.causal_align = 1; },
            {"mask", "two", "causal", "one of each kind"}},
        Row{"two_alignments",
            [](Call& c) {
              (Mask::causal(Align::kTopLeft) & Mask::window(3, 3, Align::kBottomRight)).fill(c.o);
            },
            {"alignment", "top_left", "bottom_right"}},
        Row{"causal_without_alignment",
            [](Call& c) { Mask::causal().fill(c.o); },
            {"mask.causal", "alignment", "4 queries", "5 keys", "top_left", "bottom_right"}},
        Row{"window_without_alignment",
            [](Call& c) { Mask::window(1, 1).fill(c.o); },
            {"mask.window", "alignment", "4 queries", "5 keys", "top_left", "bottom_right"}},
        Row{"causal_with_lengths_without_alignment",
            [](Call& c) {
              c.tk.shape[1] = c.tv.shape[1] = 4;
              (Mask::causal() & Mask::key_lengths(TensorView(c.lengths()))).fill(c.o);
              c.ints = {4, 4};
            },
            {"mask.causal", "key lengths", "top_left", "bottom_right"}},
        Row{"align_unknown", [](Call& c) { c.o.set |= ATTNMUX_MASK_CAUSAL, c.o.causal_align = 9; }, {"causal", "align", "9", "top_left"}},
        Row{"align_of_no_mask", [](Call& c) { c.o.causal_align = 1; }, {"causal", "align", "1"}},
        Row{"window_left", [](Call& c) { Mask::window(-2, 0, Align::kTopLeft).fill(c.o); }, {"mask.window", "left", "-2", "-1"}},
        Row{"window_right", [](Call& c) { Mask::window(0, INT64_MIN, Align::kTopLeft).fill(c.o); }, {"mask.window", "right", "-9223372036854775808", "-1"}},
        Row{"window_unset", [](Call& c) { c.o.window_left = 4; }, {"mask.window", "4", "ATTNMUX_MASK_WINDOW"}},
        Row{"lengths_too_long",
            [](Call& c) { c.ints = {5, 6}, Mask::key_lengths(TensorView(c.lengths())).fill(c.o); },
            {"mask.key_lengths[1]", "6", "0 to 5"}},
        Row{"lengths_negative",
            [](Call& c) { c.ints = {-1, 5}, Mask::key_lengths(TensorView(c.lengths())).fill(c.o); },
            {"mask.key_lengths[0]", "-1", "0 to 5"}},
        Row{"lengths_of_another_batch",
            [](Call& c) { Mask::key_lengths(TensorView(c.ints.data(), {3})).fill(c.o); },
            {"mask.key_lengths", "3", "2"}},
        Row{"lengths_rank", [](Call& c) { Mask::key_lengths(TensorView(c.ints.data(), {2, 1})).fill(c.o); }, {"mask.key_lengths", "2", "(B)"}},
        Row{"lengths_dtype",
            [](Call& c) { Mask::key_lengths(TensorView(c.bias.data(), {2})).fill(c.o); },
            {"mask.key_lengths", "dtype", "fp32", "int32"}},
        Row{"lengths_unset", [](Call& c) { c.o.key_lengths = c.lengths(); }, {"mask.key_lengths", "ATTNMUX_MASK_KEY_LENGTHS"}},
        Row{"lengths_missing", [](Call& c) { c.o.set |= ATTNMUX_MASK_KEY_LENGTHS; }, {"mask.key_lengths", "dtype", "0"}},
        Row{"padding_shape",
            [](Call& c) { Mask::key_padding(TensorView(c.bytes.data(), {2, 4})).fill(c.o); },
            {"mask.key_padding", "(2, 4)", "5"}},
        Row{"padding_batch",
            [](Call& c) { Mask::key_padding(TensorView(c.bytes.data(), {1, 5})).fill(c.o); },
            {"mask.key_padding", "(1, 5)", "2"}},
        Row{"padding_rank",
            [](Call& c) { Mask::key_padding(TensorView(c.bytes.data(), {2, 1, 5})).fill(c.o); },
            {"mask.key_padding", "3", "(B, Skv)"}},
        Row{"padding_dtype",
            [](Call& c) { Mask::key_padding(TensorView(c.q.data(), {2, 5})).fill(c.o); },
            {"mask.key_padding", "fp32", "bool and uint8"}},
        Row{"dense_shape",
            [](Call& c) { Mask::dense(TensorView(c.bytes.data(), {2, 6, 5, 4})).fill(c.o); },
            {"mask.dense", "(2, 6, 5, 4)", "(2, 6, 4, 5)"}},
        Row{"dense_of_key_heads",
            [](Call& c) { Mask::dense(TensorView(c.bytes.data(), {2, 2, 4, 5})).fill(c.o); },
            {"mask.dense", "(2, 2, 4, 5)", "(2, 6, 4, 5)"}},
        // (B, Skv) is not guessed to be padding: it aligns at the right, as (Sq, Skv).
        Row{"dense_is_not_padding",
            [](Call& c) { Mask::dense(TensorView(c.bytes.data(), {2, 5})).fill(c.o); },
            {"mask.dense", "(2, 5)", "(2, 6, 4, 5)"}},
        Row{"dense_dtype",
            [](Call& c) { Mask::dense(TensorView(c.bias.data(), {5})).fill(c.o); },
            {"mask.dense", "fp32", "bool and uint8", "bias"}},
        Row{"bias_shape", [](Call& c) { c.o.set |= ATTNMUX_BIAS, c.o.bias = TensorView(c.bias.data(), {4}).c(); }, {"bias", "(4)", "(2, 6, 4, 5)"}},
        Row{"bias_dtype",
            [](Call& c) { c.o.set |= ATTNMUX_BIAS, c.o.bias = TensorView(c.bytes.data(), {5}).c(); },
            {"bias", "uint8", "fp32, fp16, bf16"}},
        Row{"bias_fp64_of_fp32",
            [](Call& c) {
              c.o.set |= ATTNMUX_BIAS, c.o.bias = TensorView(c.bias.data(), {5}).c(), c.o.bias.dtype = ATTNMUX_FP64;
            },
            {"bias", "fp64", "fp32, fp16, bf16 (a boolean mask"}},
        Row{"bias_device",
            [](Call& c) { c.o.set |= ATTNMUX_BIAS, c.o.bias = TensorView(c.bias.data(), {5}, Device::cuda(1)).c(); },
            {"bias", "cuda:1", "cpu"}},
        Row{"lse_shape",
            [](Call& c) { c.o.set |= ATTNMUX_LSE, c.o.lse = MutableTensorView(c.lse.data(), {2, 4, 6}).c(); },
            {"lse", "(2, 4, 6)", "6"}},
        Row{"lse_rank",
            [](Call& c) { c.o.set |= ATTNMUX_LSE, c.o.lse = MutableTensorView(c.lse.data(), {6, 8}).c(); },
            {"lse", "(6, 8)", "(B, Hq, Sq)"}},
        Row{"lse_dtype",
            [](Call& c) { c.o.set |= ATTNMUX_LSE, c.o.lse = MutableTensorView(c.lse.data(), Dtype::kBf16, {2, 6, 4}).c(); },
            {"lse", "bf16", "fp32"}},
        Row{"lse_overlaps_itself",
            [](Call& c) { c.o.set |= ATTNMUX_LSE, c.o.lse = MutableTensorView(c.lse.data(), Dtype::kFp32, {2, 6, 4}, {0, 4, 1}).c(); },
            {"lse", "strides[0]", "share memory"}}),
    row_name);

// The tensors of a right call as e4m3, with a bf16 output.
void make_e4m3(Call& c) {
  c.tq.dtype = c.tk.dtype = c.tv.dtype = ATTNMUX_E4M3;
  c.tout.dtype = ATTNMUX_BF16;
  c.o.set |= ATTNMUX_DESCALE;
  c.o.k_descale = TensorView(c.bias.data(), {2, 2}).c();
}

INSTANTIATE_TEST_SUITE_P(
    Descales, BadInput,
    ::testing::Values(
        Row{"out_dtype", [](Call& c) { make_e4m3(c), c.tout.dtype = ATTNMUX_E4M3; }, {"out.dtype", "e4m3", "bf16"}},
        Row{"of_another_dtype",
            [](Call& c) { make_e4m3(c), c.tq.dtype = c.tk.dtype = c.tv.dtype = c.tout.dtype = ATTNMUX_FP32; },
            {"descale", "fp32", "e4m3"}},
        Row{"dtype",
            [](Call& c) { make_e4m3(c), c.o.k_descale.dtype = ATTNMUX_INT32; },
            {"descale.k", "int32", "fp32"}},
        Row{"rank", [](Call& c) { make_e4m3(c), c.o.k_descale.ndim = 1; }, {"descale.k", "(2)", "(B, Hkv)"}},
        Row{"batch",
            [](Call& c) { make_e4m3(c), c.o.k_descale.shape[0] = 1; },
            {"descale.k", "(1, 2)", "2", "sequence"}},
        Row{"heads",
            [](Call& c) { make_e4m3(c), c.o.k_descale.shape[1] = 1; },
            {"descale.k", "(2, 1)", "2", "heads of k"}},
        Row{"unset", [](Call& c) { make_e4m3(c), c.o.set &= ~ATTNMUX_DESCALE; }, {"descale.k", "ATTNMUX_DESCALE"}}),
    row_name);

INSTANTIATE_TEST_SUITE_P(
    PackedSequences, BadInput,
    ::testing::Values(
        Row{"rank_of_q",
            [](Call& c) { c.pack({0, 3, 8}, {0, 5, 10}), c.tq = TensorView(c.q.data(), {1, 8, 6, 8}).c(); },
            {"q", "(1, 8, 6, 8)", "(T, Hq, D)"}},
        Row{"not_from_0", [](Call& c) { c.pack({1, 3, 8}, {0, 5, 10}); }, {"varlen.cu_seqlens_q[0]", "1", "0"}},
        Row{"falling", [](Call& c) { c.pack({0, 8, 7}, {0, 5, 10}); }, {"varlen.cu_seqlens_q[2]", "7", "8"}},
        Row{"falling_kv", [](Call& c) { c.pack({0, 3, 8}, {0, -5, 10}); }, {"varlen.cu_seqlens_kv[1]", "-5", "0"}},
        Row{"short_of_the_tokens",
            [](Call& c) { c.pack({0, 3, 7}, {0, 5, 10}); },
            {"varlen.cu_seqlens_q[2]", "7", "8", "tokens of q"}},
        Row{"beyond_the_tokens",
            [](Call& c) { c.pack({0, 3, 8}, {0, 5, 12}); },
            {"varlen.cu_seqlens_kv[2]", "12", "10"}},
        Row{"longer_than_max",
            [](Call& c) { c.pack({0, 3, 8}, {0, 5, 10}), c.o.max_seqlen_q = 4; },
            {"varlen.cu_seqlens_q", "sequence 1", "5", "max_seqlen", "4"}},
        Row{"max_negative",
            [](Call& c) { c.pack({0, 3, 8}, {0, 5, 10}), c.o.max_seqlen_kv = -2; },
            {"max_seqlen_kv", "-2", "0"}},
        Row{"max_without_packing", [](Call& c) { c.o.max_seqlen_q = 4; }, {"max_seqlen", "4", "cu_seqlens"}},
        Row{"different_counts", [](Call& c) { c.pack({0, 3, 8}, {0, 10}); }, {"varlen.cu_seqlens_kv", "2", "3"}},
        Row{"no_entries", [](Call& c) { c.pack({}, {}); }, {"varlen.cu_seqlens_q", "B+1"}},
        Row{"kv_missing",
            [](Call& c) { c.pack({0, 3, 8}, {0, 5, 10}), c.o.cu_seqlens_kv = {}; },
            {"varlen.cu_seqlens_kv", "dtype"}},
        Row{"dtype",
            [](Call& c) { c.pack({0, 3, 8}, {0, 5, 10}), c.o.cu_seqlens_q.dtype = ATTNMUX_FP32; },
            {"varlen.cu_seqlens_q", "fp32", "int32"}},
        Row{"rank",
            [](Call& c) { c.pack({0, 3, 8}, {0, 5, 10}), c.o.cu_seqlens_q.ndim = 0; },
            {"varlen.cu_seqlens_q", "(B+1)"}},
        Row{"unset", [](Call& c) { c.o.cu_seqlens_q = c.lengths(); }, {"varlen.cu_seqlens_q", "ATTNMUX_VARLEN"}},
        Row{"lengths_beyond_the_sequence",
            [](Call& c) {
              c.pack({0, 3, 8}, {0, 2, 10}), c.ints = {3, 8}, Mask::key_lengths(TensorView(c.lengths())).fill(c.o);
            },
            {"mask.key_lengths[0]", "3", "0 to 2"}},
        Row{"causal_without_alignment",
            [](Call& c) { c.pack({0, 3, 8}, {0, 5, 10}), Mask::causal().fill(c.o); },
            {"mask.causal", "cu_seqlens", "top_left", "bottom_right"}},
        Row{"lse_of_a_padded_batch",
            [](Call& c) {
              c.pack({0, 3, 8}, {0, 5, 10});
              c.o.set |= ATTNMUX_LSE, c.o.lse = MutableTensorView(c.lse.data(), {2, 6, 4}).c();
            },
            {"lse", "(2, 6, 4)", "(Hq, T)"}},
        Row{"lse_transposed",
            [](Call& c) {
              c.pack({0, 3, 8}, {0, 5, 10});
              c.o.set |= ATTNMUX_LSE, c.o.lse = MutableTensorView(c.lse.data(), {8, 6}).c();
            },
            {"lse", "(8, 6)", "6"}}),
    row_name);

INSTANTIATE_TEST_SUITE_P(
    Structs, BadInput,
    ::testing::Values(
        Row{"options_too_small",
            [](Call& c) { c.o.struct_size -= 8; },
            {"options.struct_size", std::to_string(sizeof(attnmux_options) - 8),
             std::to_string(sizeof(attnmux_options))}},
        Row{"options_of_size_0", [](Call& c) { c.o.struct_size = 0; }, {"options.struct_size", "0"}},
        Row{"unknown_bit", [](Call& c) { c.o.set |= uint64_t{1} << 40; }, {"options.set", "40"}},
        Row{"bit_seen_from_the_shapes", [](Call& c) { c.o.set |= ATTNMUX_GQA; }, {"options.set", "11", "shapes"}},
        Row{"reserved_field", [](Call& c) { c.o.reserved[1] = 1; }, {"options.reserved", "zero"}},
        Row{"role_too_long",
            [](Call& c) { std::fill(c.o.layer_role, c.o.layer_role + 16, 'r'); },
            {"layer.role", "rrrrrrrrrrrrrrrr", "15"}},
        Row{"exec_too_small",
            [](Call& c) { c.e.struct_size = 8; },
            {"exec.struct_size", "8", std::to_string(sizeof(attnmux_exec))}},
        Row{"exec_unknown_bit", [](Call& c) { c.e.set = 2; }, {"exec.set"}},
        Row{"negative_threads", [](Call& c) { c.e.num_threads = -1; }, {"num_threads", "-1", "0"}},
        Row{"pool_without_parallel_for", [](Call& c) { c.e.pool = &c; }, {"exec.pool", "parallel_for"}},
        Row{"stream_allocate_alone",
            [](Call& c) { c.e.stream_allocate = [](void*, int32_t, void*, size_t) -> void* { return nullptr; }; },
            {"exec.stream_deallocate", "counterpart"}},
        Row{"stream_user_alone", [](Call& c) { c.e.stream_user = &c; }, {"exec.stream_user", "stream_allocate"}},
        Row{"stream_allocator_on_the_cpu",
            [](Call& c) {
              c.e.stream_allocate = [](void*, int32_t, void*, size_t) -> void* { return nullptr; };
              c.e.stream_deallocate = [](void*, int32_t, void*, void*, size_t) {};
            },
            {"exec.stream_allocate", "cpu"}},
        Row{"stream_on_the_cpu", [](Call& c) { c.e.stream = ATTNMUX_STREAM_LEGACY; }, {"stream", "cpu"}},
        Row{"workspace_unset",
            [](Call& c) { c.e.workspace = c.q.data(), c.e.workspace_bytes = 64; },
            {"workspace", "64", "ATTNMUX_EXEC_WORKSPACE"}},
        Row{"workspace_null",
            [](Call& c) { c.e.set = ATTNMUX_EXEC_WORKSPACE, c.e.workspace_bytes = 64; },
            {"workspace", "null", "64"}}),
    row_name);

}  // namespace
}  // namespace attnmux
