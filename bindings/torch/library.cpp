// SPDX-License-Identifier: Apache-2.0
// The operators `torch.ops.attnmux.*` on PyTorch's stable ABI: one binary for PyTorch 2.9 and newer.
//
// All are pure functions of their arguments: they return new tensors, draw no random numbers (the seed is an argument)
// and look at no scope or default (the backend is an argument). attnmux/torch/_ops.py adds what PyTorch keeps in
// Python: fakes, autograd, vmap.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <array>
#include <string>

#include "arguments.h"
#include "call.h"
#include "tensors.h"

namespace attnmux::torch_op {
namespace {

constexpr int kAsIs[] = {0, 1, 2, 3}, kMiddleSwapped[] = {0, 2, 1, 3};

// Where the rows of one head lie together in q, they do in the output, so that a caller's .view() of it goes on
// working; else the heads of a row do, as in projections. The fakes in _fakes.py follow the same rule.
bool rows_of_a_head_together(const attnmux_tensor& q, int heads, int rows) {
  return q.strides[heads] > q.strides[rows];
}

// PyTorch's attention takes any strides, kernels a contiguous last dimension.
attnmux_tensor view_with_rows(const char* name, Handle& tensor) {
  attnmux_tensor t = view(name, tensor);
  if (t.ndim == 4 && (t.shape[3] <= 1 || t.strides[3] == 1)) return t;
  if (t.ndim != 4) {
    throw_error(ATTNMUX_INVALID_ARGUMENT,
                std::string(name) + " has " + std::to_string(t.ndim) + " dimensions; accepted is (B, H, S, D)");
  }
  tensor = contiguous_copy(t, tensor);
  return view(name, tensor);
}

// A mask as PyTorch takes it: bool keeps where true, anything else is added to the scores.
void set_mask(attnmux_options& o, const Handle& mask) {
  const attnmux_tensor t = view("attn_mask", mask);
  if (t.ndim < 2) {
    throw_error(ATTNMUX_INVALID_ARGUMENT, "attn_mask has " + std::to_string(t.ndim) +
                                              " dimensions; accepted is what broadcasts to (B, H, Sq, Skv), of two "
                                              "dimensions at least");
  }
  const bool keeps = t.dtype == ATTNMUX_BOOL;
  (keeps ? o.dense_mask : o.bias) = t;
  o.set |= keeps ? ATTNMUX_MASK_DENSE : ATTNMUX_BIAS;
}

void set_scale(attnmux_options& o, std::optional<double> scale) {
  if (!scale) return;
  o.set |= ATTNMUX_SCALE;
  o.scale = *scale;
}

// Extents of 1 in batch and heads repeat, as in a batched matrix product. Key heads repeat for groups of query heads
// only on request; one key head for all is both.
void broadcast(attnmux_tensor& q, attnmux_tensor& k, attnmux_tensor& v, bool enable_gqa) {
  for (const int dim : {0, 1}) {
    const int64_t extent = std::max({q.shape[dim], k.shape[dim], v.shape[dim]});
    const bool empty = std::min({q.shape[dim], k.shape[dim], v.shape[dim]}) == 0;
    const bool grouped = dim == 1 && enable_gqa;
    for (attnmux_tensor* t : {&q, &k, &v}) {
      if (t->shape[dim] == extent || grouped) continue;
      if (t->shape[dim] != 1 && !empty) {
        throw_error(ATTNMUX_INVALID_ARGUMENT,
                    std::string("query, key and value have ") + (dim == 0 ? "batches" : "numbers of heads") + " of " +
                        std::to_string(q.shape[dim]) + ", " + std::to_string(k.shape[dim]) + " and " +
                        std::to_string(v.shape[dim]) + "; they must be equal or 1" +
                        (dim == 0 ? "" : " (enable_gqa=True lets key heads serve groups of query heads)"));
      }
      if (t->shape[dim] != 1) continue;  // the library names what is wrong with an extent of 0
      t->shape[dim] = empty ? 0 : extent;
      t->strides[dim] = 0;
    }
  }
}

// sdpa_inference(query, key, value, attn_mask, is_causal, scale, enable_gqa, backend) -> out; (B, H, S, D).
void sdpa_inference(StableIValue* stack, uint64_t num_arguments, uint64_t) {
  Arguments arguments(stack, num_arguments, 8);
  Handle query = arguments.tensor(), key = arguments.tensor(), value = arguments.tensor();
  const Handle mask = arguments.optional_tensor();
  const bool causal = arguments.boolean();
  const std::optional<double> scale = arguments.optional_real();
  const bool enable_gqa = arguments.boolean();
  attnmux_options o = options_for(arguments.integer());

  attnmux_tensor q = view_with_rows("query", query), k = view_with_rows("key", key), v = view_with_rows("value", value);
  if (mask) set_mask(o, mask);
  if (causal) {
    o.set |= ATTNMUX_MASK_CAUSAL;
    o.causal_align = ATTNMUX_ALIGN_TOP_LEFT;
  }
  set_scale(o, scale);
  broadcast(q, k, v, enable_gqa);
  const int64_t shape[] = {q.shape[0], q.shape[1], q.shape[2], v.shape[3]};
  Handle out = new_tensor(q, q.dtype, shape, rows_of_a_head_together(q, 1, 2) ? kAsIs : kMiddleSwapped);
  attnmux_tensor o_view = view("out", out);
  for (attnmux_tensor* t : {&q, &k, &v, &o_view}) swap_heads_and_rows(*t);
  run(q, k, v, o_view, o);
  stack[0] = torch::stable::detail::from(out.release());
}

// A tensor that may be absent, with the feature that it asks for.
struct OptionalTensor {
  Handle handle;
  const char* name;
  uint64_t feature;
  attnmux_tensor attnmux_options::*field;
};

void set_dropout(attnmux_options& o, double p, const Handle& seed) {
  if (p == 0) return;
  o.dropout_p = p;
  if (!seed) throw_error(ATTNMUX_INVALID_ARGUMENT, "dropout_p is not 0 but seed is not given");
  int32_t dtype = 0, device = 0;
  int64_t elements = 0;
  void* data = nullptr;
  check_torch(aoti_torch_get_dtype(seed.get(), &dtype), "tell a dtype");
  check_torch(aoti_torch_get_device_type(seed.get(), &device), "tell a device");
  check_torch(aoti_torch_get_numel(seed.get(), &elements), "tell a shape");
  check_torch(aoti_torch_get_data_ptr(seed.get(), &data), "tell an address");
  if (dtype != aoti_torch_dtype_int64() || device != aoti_torch_device_type_cpu() || elements != 1) {
    throw_error(ATTNMUX_INVALID_ARGUMENT, "seed must be one int64 in host memory");
  }
  o.set |= ATTNMUX_DROPOUT;
  o.dropout_seed = static_cast<uint64_t>(*static_cast<const int64_t*>(data));
}

// The bits of causal and window; `align` is the corner of both.
void set_diagonal(attnmux_options& o, bool causal, int64_t left, int64_t right, int64_t align) {
  if (causal) {
    o.set |= ATTNMUX_MASK_CAUSAL;
    o.causal_align = static_cast<int32_t>(align);
  }
  if (left == -1 && right == -1) return;
  o.set |= ATTNMUX_MASK_WINDOW;
  o.window_left = left;
  o.window_right = right;
  o.window_align = static_cast<int32_t>(align);
}

Handle new_lse(const attnmux_tensor& q) {
  if (q.ndim == 3) {
    const int64_t shape[] = {q.shape[1], q.shape[0]};
    return new_tensor(q, ATTNMUX_FP32, shape, std::span(kAsIs, 2));
  }
  const int64_t shape[] = {q.shape[0], q.shape[2], q.shape[1]};
  return new_tensor(q, ATTNMUX_FP32, shape, std::span(kAsIs, 3));
}

// attention(...) -> (out, lse); tensors are (B, S, H, D), packed ones (T, H, D). kArguments has the arguments. Python
// gives `attention` a derivative; `attention_inference` is the same without one, which PyTorch calls in a fraction of
// the time.
void attention(StableIValue* stack, uint64_t num_arguments, uint64_t) {
  Arguments arguments(stack, num_arguments, 20);
  const Handle query = arguments.tensor(), key = arguments.tensor(), value = arguments.tensor();
  std::array<OptionalTensor, 6> optional = {{
      {arguments.optional_tensor(), "bias", ATTNMUX_BIAS, &attnmux_options::bias},
      {arguments.optional_tensor(), "mask", ATTNMUX_MASK_DENSE, &attnmux_options::dense_mask},
      {arguments.optional_tensor(), "key_padding", ATTNMUX_MASK_KEY_PADDING, &attnmux_options::key_padding},
      {arguments.optional_tensor(), "key_lengths", ATTNMUX_MASK_KEY_LENGTHS, &attnmux_options::key_lengths},
      {arguments.optional_tensor(), "cu_seqlens_q", ATTNMUX_VARLEN, &attnmux_options::cu_seqlens_q},
      {arguments.optional_tensor(), "cu_seqlens_kv", ATTNMUX_VARLEN, &attnmux_options::cu_seqlens_kv},
  }};
  const Handle seed = arguments.optional_tensor();
  const int64_t max_seqlen_q = arguments.integer(), max_seqlen_kv = arguments.integer();
  const bool causal = arguments.boolean();
  const int64_t left = arguments.integer(), right = arguments.integer(), align = arguments.integer();
  const std::optional<double> scale = arguments.optional_real();
  const double softcap = arguments.real(), dropout_p = arguments.real();
  attnmux_options o = options_for(arguments.integer());

  const attnmux_tensor q = view("query", query), k = view("key", key), v = view("value", value);
  for (const OptionalTensor& t : optional) {
    if (!t.handle) continue;
    o.*t.field = view(t.name, t.handle);
    o.set |= t.feature;
  }
  o.max_seqlen_q = max_seqlen_q;
  o.max_seqlen_kv = max_seqlen_kv;
  set_diagonal(o, causal, left, right, align);
  set_scale(o, scale);
  if (softcap != 0) o.set |= ATTNMUX_SOFTCAP;
  o.softcap = softcap;
  set_dropout(o, dropout_p, seed);

  if (q.ndim < 3 || v.ndim != q.ndim) {
    throw_error(ATTNMUX_INVALID_ARGUMENT, "query has " + std::to_string(q.ndim) + " dimensions and value " +
                                              std::to_string(v.ndim) +
                                              "; accepted is (B, S, H, D), for packed sequences (T, H, D)");
  }
  int64_t shape[4] = {};
  const auto rank = static_cast<size_t>(q.ndim);
  std::copy_n(q.shape, rank, shape);
  shape[rank - 1] = v.shape[rank - 1];
  const bool swapped = q.ndim == 4 && rows_of_a_head_together(q, 2, 1);
  Handle out = new_tensor(q, q.dtype, std::span(shape, rank), std::span(swapped ? kMiddleSwapped : kAsIs, rank));
  Handle lse = new_lse(q);
  o.lse = view("lse", lse);
  o.set |= ATTNMUX_LSE;
  run(q, k, v, view("out", out), o);
  stack[0] = torch::stable::detail::from(out.release());
  stack[1] = torch::stable::detail::from(lse.release());
}

constexpr const char* kArguments =
    "(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? mask, Tensor? key_padding, Tensor? key_lengths, "
    "Tensor? cu_seqlens_q, Tensor? cu_seqlens_kv, Tensor? seed, int max_seqlen_q, int max_seqlen_kv, bool causal, "
    "int window_left, int window_right, int align, float? scale, float softcap, float dropout_p, int backend) -> "
    "(Tensor out, Tensor lse)";
constexpr const char* kSdpaSchema =
    "sdpa_inference(Tensor query, Tensor key, Tensor value, Tensor? attn_mask, bool is_causal, float? scale, "
    "bool enable_gqa, int backend) -> Tensor";

}  // namespace
}  // namespace attnmux::torch_op

STABLE_TORCH_LIBRARY(attnmux, m) {
  for (const char* name : {"attention", "attention_inference"}) {
    m.def((std::string(name) + attnmux::torch_op::kArguments).c_str());
  }
  m.def(attnmux::torch_op::kSdpaSchema);
}

// One registration per device. Without a CompositeImplicit one, a tensor of another device is an error.
STABLE_TORCH_LIBRARY_IMPL(attnmux, CPU, m) {
  m.impl("attention", &attnmux::torch_op::attention);
  m.impl("attention_inference", &attnmux::torch_op::attention);
  m.impl("sdpa_inference", &attnmux::torch_op::sdpa_inference);
}
STABLE_TORCH_LIBRARY_IMPL(attnmux, CUDA, m) {
  m.impl("attention", &attnmux::torch_op::attention);
  m.impl("attention_inference", &attnmux::torch_op::attention);
  m.impl("sdpa_inference", &attnmux::torch_op::sdpa_inference);
}
