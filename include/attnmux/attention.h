// SPDX-License-Identifier: Apache-2.0
// The verbs. One list of arguments: q, k, v, out, options, exec.
//
// Shapes: q (B,Sq,Hq,D), k (B,Skv,Hkv,D), v (B,Skv,Hkv,Dv), out (B,Sq,Hq,Dv); with options.varlen packed (T,H,D). Hq is
// a multiple of Hkv. dtypes: fp32, fp16, bf16 (fp64 on `native` and `_native_math`; e4m3 with
// bf16 out on `_flash_3`, and on the CPU on those two); softmax and accumulation in fp32
// or better. Any strides and offsets; the last dimension is contiguous. Inputs are never written to. A row with no key
// to attend to gives 0 and a log-sum-exp of -inf. An argument that the backend cannot honour is an error that names it.
#pragma once

#include <attnmux/options.h>

#include <utility>

namespace attnmux {

/// A choice made once; runs any number of times, from any thread, with every smaller B, Sq and Skv. Never looks at
/// scopes, environment or defaults again; given a workspace, a run neither allocates nor locks.
class Plan {
 public:
  Plan() = default;
  Plan(Plan&& other) noexcept : plan_(std::exchange(other.plan_, nullptr)) {}
  Plan& operator=(Plan&& other) noexcept {
    std::swap(plan_, other.plan_);
    return *this;
  }
  ~Plan() { attnmux_plan_release(plan_); }

  size_t workspace_bytes() const { return attnmux_plan_workspace_bytes(plan_); }
  std::string_view kernel() const { return plan_ == nullptr ? "" : attnmux_plan_kernel(plan_); }
  Backend backend() const { return Backend::from_id(attnmux_plan_backend(plan_)); }

  Status try_run(const TensorView& q, const TensorView& k, const TensorView& v, const MutableTensorView& out,
                 const AttentionOptions& options = {}, const ExecContext& exec = {}) const {
    const ExecFrame frame(exec);
    return run_in(frame, q, k, v, out, options);
  }
#if defined(__cpp_exceptions)
  void run(const TensorView& q, const TensorView& k, const TensorView& v, const MutableTensorView& out,
           const AttentionOptions& options = {}, const ExecContext& exec = {}) const {
    const ExecFrame frame(exec);
    frame.rethrow_if_failed(run_in(frame, q, k, v, out, options));
  }
#endif

 private:
  friend Status try_plan(Plan&, const TensorView&, const TensorView&, const TensorView&, const MutableTensorView&,
                         const AttentionOptions&, const ExecContext&);
  Status run_in(const ExecFrame& frame, const TensorView& q, const TensorView& k, const TensorView& v,
                const MutableTensorView& out, const AttentionOptions& options) const {
    Status status;
    const attnmux_options o = options.c();
    attnmux_plan_run(plan_, &q.c(), &k.c(), &v.c(), &out.c(), &o, frame.c(), status.c_error());
    return status;
  }
  attnmux_plan* plan_ = nullptr;
};

/// Chooses now, on this thread. Pointers may be null: they are taken as 16-byte aligned.
inline Status try_plan(Plan& plan, const TensorView& q, const TensorView& k, const TensorView& v,
                       const MutableTensorView& out, const AttentionOptions& options = {},
                       const ExecContext& exec = {}) {
  Status status;
  Plan fresh;
  const ExecFrame frame(exec);
  const attnmux_options o = options.c();
  attnmux_plan_create(&q.c(), &k.c(), &v.c(), &out.c(), &o, frame.c(), &fresh.plan_, status.c_error());
  if (status) plan = std::move(fresh);
  return status;
}

namespace detail {
inline Status attention_in(const ExecFrame& frame, const TensorView& q, const TensorView& k, const TensorView& v,
                           const MutableTensorView& out, const AttentionOptions& options) {
  Status status;
  const attnmux_options o = options.c();
  attnmux_attention(&q.c(), &k.c(), &v.c(), &out.c(), &o, frame.c(), status.c_error());
  return status;
}
}  // namespace detail

/// attention() for people who do not throw.
inline Status try_attention(const TensorView& q, const TensorView& k, const TensorView& v, const MutableTensorView& out,
                            const AttentionOptions& options = {}, const ExecContext& exec = {}) {
  const ExecFrame frame(exec);
  return detail::attention_in(frame, q, k, v, out, options);
}

#if defined(__cpp_exceptions)
/// out = softmax(mask(scale · q kᵀ) + bias) v. Throws Error.
inline void attention(const TensorView& q, const TensorView& k, const TensorView& v, const MutableTensorView& out,
                      const AttentionOptions& options = {}, const ExecContext& exec = {}) {
  const ExecFrame frame(exec);
  frame.rethrow_if_failed(detail::attention_in(frame, q, k, v, out, options));
}

inline Plan plan(const TensorView& q, const TensorView& k, const TensorView& v, const MutableTensorView& out,
                 const AttentionOptions& options = {}, const ExecContext& exec = {}) {
  Plan made;
  detail::throw_if_failed(try_plan(made, q, k, v, out, options, exec));
  return made;
}
#endif

}  // namespace attnmux
