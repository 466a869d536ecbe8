// SPDX-License-Identifier: Apache-2.0
#include "attnmux/inputs.h"

#include "attnmux/errors.h"

namespace attnmux::cli {
namespace {

// A byte per element, about three quarters of them 1.
HostTensor random_mask(std::vector<int64_t> shape, uint64_t seed) {
  HostTensor noise(Dtype::kFp32, shape);
  noise.fill_normal(seed);
  const auto* values = reinterpret_cast<const float*>(noise.data());
  HostTensor mask(Dtype::kBool, std::move(shape));
  for (int64_t i = 0; i < mask.elements(); ++i) mask.data()[i] = static_cast<std::byte>(values[i] > -0.67F);
  return mask;
}

HostTensor random_tensor(const ProblemSpec& s, int64_t seqlen, int64_t heads, int64_t dim, uint64_t stream,
                         double factor = 1) {
  HostTensor tensor(s.dtype, {s.batch, seqlen, heads, dim});
  tensor.fill_normal(s.seed * 8 + stream, factor);
  return tensor;
}

TensorView view_or_none(const HostTensor& tensor) {
  return tensor.dtype() == Dtype::kNone ? TensorView() : TensorView(tensor.view());
}

bool given(const TensorView& view) { return view.c().dtype != 0; }

}  // namespace

AttentionOptions Inputs::options(const ProblemSpec& spec, Backend backend, const MutableTensorView& lse) const {
  AttentionOptions o = spec.options(backend, lse);
  if (given(key_padding)) o.mask = o.mask & Mask::key_padding(key_padding);
  if (given(dense_mask)) o.mask = o.mask & Mask::dense(dense_mask);
  o.bias = bias;
  return o;
}

RandomInputs::RandomInputs(const ProblemSpec& s, const RandomExtras& extras)
    : q_(random_tensor(s, s.seqlen_q, s.heads_q, s.head_dim, 1, extras.magnitude)),
      k_(random_tensor(s, s.seqlen_kv, s.heads_kv, s.head_dim, 2)),
      v_(random_tensor(s, s.seqlen_kv, s.heads_kv, s.head_dim_v, 3)) {
  if (extras.key_padding) key_padding_ = random_mask({s.batch, s.seqlen_kv}, s.seed * 8 + 4);
  if (extras.dense_mask) dense_mask_ = random_mask({s.batch, 1, s.seqlen_q, s.seqlen_kv}, s.seed * 8 + 5);
  if (extras.bias) {
    const bool wide = s.dtype == Dtype::kFp32 || s.dtype == Dtype::kFp64;
    bias_ = HostTensor(wide ? Dtype::kFp32 : s.dtype, {1, s.heads_q, s.seqlen_q, s.seqlen_kv});
    bias_.fill_normal(s.seed * 8 + 6);
  }
}

Inputs RandomInputs::views() const {
  return {q_.view(), k_.view(), v_.view(), view_or_none(key_padding_), view_or_none(dense_mask_), view_or_none(bias_)};
}

Outputs::Outputs(const ProblemSpec& s) : out(s.dtype, {s.batch, s.seqlen_q, s.heads_q, s.head_dim_v}) {
  out.poison();
  if (!s.lse) return;
  lse = HostTensor(Dtype::kFp32, {s.batch, s.heads_q, s.seqlen_q});
  lse.poison();
}

double bytes_needed(const ProblemSpec& s, size_t outputs) {
  const double out_rows =
      static_cast<double>(s.batch) * static_cast<double>(s.seqlen_q) * static_cast<double>(s.heads_q);
  const double out =
      out_rows * (static_cast<double>(s.head_dim_v) * static_cast<double>(element_size(s.dtype)) + (s.lse ? 4 : 0));
  return bytes_moved(s) + static_cast<double>(outputs) * out;
}

void require_host(const ProblemSpec& spec, Backend backend) {
  if (spec.device == Device::cpu()) return;
  const Call call = planned_call(spec, backend);
  Plan unused;
  throw_if_failed(try_plan(unused, call.q, call.k, call.v, call.out, call.options, exec_for(spec.device)));
  throw UsageError("--device: " + device_name(spec.device) +
                   " is not accepted; this command keeps its tensors in host memory, cpu");
}

}  // namespace attnmux::cli
