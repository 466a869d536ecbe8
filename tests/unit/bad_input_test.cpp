// SPDX-License-Identifier: Apache-2.0
// Every wrong argument: the message starts with "[attention]", names the argument, its value and what is accepted, and
// every verb says the same.
#include <attnmux/attnmux.h>

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace attnmux {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// A right call of two batches, which a test then spoils.
struct Call {
  std::vector<float> q = std::vector<float>(2 * 4 * 6 * 8, 0.5f), k = std::vector<float>(2 * 5 * 2 * 8, 0.5f),
                     v = std::vector<float>(2 * 5 * 2 * 8, 0.5f), out = std::vector<float>(2 * 4 * 6 * 8, -7.f),
                     lse = std::vector<float>(2 * 6 * 4, -7.f), bias = std::vector<float>(5);
  std::vector<uint8_t> bytes = std::vector<uint8_t>(2 * 6 * 4 * 5, 1);
  std::vector<int32_t> ints = {0, 2, 5, 5, 5, 5};
  attnmux_tensor tq = TensorView(q.data(), {2, 4, 6, 8}).c(), tk = TensorView(k.data(), {2, 5, 2, 8}).c(),
                 tv = TensorView(v.data(), {2, 5, 2, 8}).c(), tout = TensorView(out.data(), {2, 4, 6, 8}).c();
  attnmux_options o = AttentionOptions{}.c();
  attnmux_exec e{};

  Call() { e.struct_size = sizeof(e); }
  Call(const Call&) = delete;

  void pack(std::vector<int32_t> cu_q, std::vector<int32_t> cu_kv) {
    cu_q_ = std::move(cu_q);
    cu_kv_ = std::move(cu_kv);
    tq = TensorView(q.data(), {8, 6, 8}).c();
    tk = TensorView(k.data(), {10, 2, 8}).c();
    tv = TensorView(v.data(), {10, 2, 8}).c();
    tout = TensorView(out.data(), {8, 6, 8}).c();
    o.set |= ATTNMUX_VARLEN;
    o.cu_seqlens_q = TensorView(cu_q_).c();
    o.cu_seqlens_kv = TensorView(cu_kv_).c();
  }
  attnmux_tensor lengths() { return TensorView(ints.data(), {2}).c(); }

  Status attention() {
    Status s;
    attnmux_attention(&tq, &tk, &tv, &tout, &o, &e, s.c_error());
    return s;
  }
  Status plan() {
    Status s;
    attnmux_plan* made = nullptr;
    attnmux_plan_create(&tq, &tk, &tv, &tout, &o, &e, &made, s.c_error());
    EXPECT_EQ(made != nullptr, s.ok());
    attnmux_plan_release(made);
    return s;
  }
  Status explain() {
    Status s;
    attnmux_explain(&tq, &tk, &tv, &tout, &o, &e, 0, [](void*, const char*, size_t) {}, nullptr, s.c_error());
    return s;
  }

 private:
  std::vector<int32_t> cu_q_, cu_kv_;
};

struct Row {
  const char* name;
  std::function<void(Call&)> spoil;
  std::vector<std::string> says;  // argument, value, what is accepted
};

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
      EXPECT_NE(status.message().find(word), std::string_view::npos) << "no \"" << word << "\" in: " << status.message();
    }
    EXPECT_EQ(status.message(), ways[0].message());
  }
  for (const float x : call.out) ASSERT_EQ(x, -7.f) << "a refused call wrote to out";
}

attnmux_tensor with(attnmux_tensor t, const std::function<void(attnmux_tensor&)>& change) {
  change(t);
  return t;
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
        Row{"head_dim_of_out", [](Call& c) { c.tout.shape[3] = 4; }, {"out", "(2, 4, 6, 4)", "4", "8", "head_dim of v"}},
        Row{"heads_not_a_multiple", [](Call& c) { c.tq.shape[2] = c.tout.shape[2] = 5; }, {"q", "5", "k", "2", "multiple"}},
        Row{"no_key_heads", [](Call& c) { c.tk.shape[2] = c.tv.shape[2] = 0; }, {"q", "6", "k", "0", "multiple"}},
        Row{"head_dim_0", [](Call& c) { c.tq.shape[3] = c.tk.shape[3] = 0; }, {"head_dim of q", "0", "1 or more"}},
        Row{"head_dim_of_v_0", [](Call& c) { c.tv.shape[3] = c.tout.shape[3] = 0; }, {"head_dim of v", "0", "1 or more"}},
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
        Row{"out_overlaps_itself_zero", [](Call& c) { c.tout.strides[0] = 0; }, {"out", "strides[0]", "0", "share memory"}},
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
        Row{"out_touches_v_by_one", [](Call& c) { c.tv.data = c.out.data() + c.out.size() - 1; }, {"out", "overlaps", "v"}},
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
        Row{"out_is_key_lengths",
            [](Call& c) {
              for (int i = 0; i < 2; ++i) c.out[static_cast<size_t>(i)] = 0;  // reads as zeros
              c.o.set |= ATTNMUX_MASK_KEY_LENGTHS;
              c.o.key_lengths = TensorView(c.out.data() + 190, Dtype::kInt32, {2}).c();
              c.out[190] = c.out[191] = 0;
            },
            {"out", "overlaps", "mask.key_lengths"}}),
    row_name);

}  // namespace
}  // namespace attnmux
