// SPDX-License-Identifier: Apache-2.0
// The verbs of the C ABI: attention, plan, run.
#include <utility>

#include "api/guard.h"
#include "api/log.h"
#include "api/run.h"
#include "dispatch/dtypes.h"
#include "dispatch/environment.h"
#include "dispatch/explain.h"
#include "dispatch/features.h"
#include "dispatch/problem.h"
#include "dispatch/registry.h"
#include "dispatch/select.h"

using namespace attnmux;

struct attnmux_plan {
  Problem problem;  // the largest that it serves; its pointers are not used
  Selection selection;
  Prepared prepared;
  int32_t num_threads;
  size_t workspace_bytes;
};

namespace {

// What ATTNMUX_VERBOSE=dispatch prints for each choice.
void log_choice(const Problem& p, const attnmux_options& o, int32_t num_threads) {
  Explained explained;
  if (explain_choice(p, o, num_threads, explained, nullptr) != ATTNMUX_OK) return;
  std::string text = explain_text(explained, false);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    log_line(std::string_view(text).substr(begin, end - begin));
    begin = end == std::string::npos ? text.size() : end + 1;
  }
}

// A kernel that is tied to one shape is tied to strides and masks as well.
attnmux_code check_same_layout(const attnmux_plan& plan, const Problem& p, attnmux_error* error) {
  const Problem& made = plan.problem;
  const struct {
    const char* name;
    const Tensor &t, &planned;
  } tensors[] = {{"q", p.q, made.q},
                 {"k", p.k, made.k},
                 {"v", p.v, made.v},
                 {"out", p.out, made.out},
                 {"lse", p.lse, made.lse},
                 {"mask.key_padding", p.key_padding, made.key_padding},
                 {"mask.dense", p.dense_mask, made.dense_mask},
                 {"bias", p.bias, made.bias}};
  for (const auto& [name, t, planned] : tensors) {
    const bool same_dtype = t.dtype == planned.dtype;
    bool same = same_dtype;
    for (int i = 0; i < 4; ++i) same = same && (t.strides[i] == planned.strides[i] || t.shape[i] <= 1);
    if (same) continue;
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("plan for " << plan.selection.kernel->name << ": the "
                                            << (same_dtype ? "strides" : "dtype") << " of " << name
                                            << " differ from the planned; this kernel serves one shape and layout"));
  }
  const struct {
    const char* name;
    int64_t value, planned;
  } numbers[] = {{"left end of the window", p.window_left, made.window_left},
                 {"right end of the window", p.window_right, made.window_right},
                 {"alignment of the mask", p.align, made.align}};
  for (const auto& [name, value, planned] : numbers) {
    if (value == planned) continue;
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("plan for " << plan.selection.kernel->name << ": the " << name << " is " << value
                                            << "; accepted is (this kernel serves one mask) the planned " << planned));
  }
  return ATTNMUX_OK;
}

attnmux_code check_fits(const attnmux_plan& plan, const Problem& p, attnmux_error* error) {
  const Problem& made = plan.problem;
  const auto wrong = [&](const char* what, int64_t value, const char* accepted, int64_t planned) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("plan for " << plan.selection.kernel->name << ": " << what << " is " << value
                                            << "; accepted is " << accepted << planned));
  };
  if (p.dtype != made.dtype) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("plan for " << plan.selection.kernel->name << ": q.dtype is " << dtype_name(p.dtype)
                                            << "; the plan is for " << dtype_name(made.dtype)));
  }
  if (p.device_type != made.device_type || p.device_id != made.device_id) {
    return wrong("device of q", p.device_id, "the planned one, ", made.device_id);
  }
  if (p.features != made.features) {
    Message text;
    text << "plan for " << plan.selection.kernel->name << ": the call differs from the planned one in";
    const char* separator = " ";
    for (const FeatureRow& row : kFeatures) {
      if (((p.features ^ made.features) & row.bit) == 0) continue;
      text << separator << row.name << ((p.features & row.bit) != 0 ? " (not planned)" : " (planned)");
      separator = ", ";
    }
    return fail(error, ATTNMUX_INVALID_ARGUMENT, text);
  }
  const struct {
    const char* name;
    int64_t value, planned;
  } same[] = {{"num_heads of q", p.num_heads_q, made.num_heads_q},
              {"num_heads of k", p.num_heads_kv, made.num_heads_kv},
              {"head_dim of q", p.head_dim, made.head_dim},
              {"head_dim of v", p.head_dim_v, made.head_dim_v}},
    at_most[] = {{"batch", p.batch, made.batch},
                 {"seqlen_q", p.seqlen_q, made.seqlen_q},
                 {"seqlen_kv", p.seqlen_kv, made.seqlen_kv},
                 {"rows of q", p.q.shape[1], made.q.shape[1]},
                 {"rows of k", p.k.shape[1], made.k.shape[1]}};
  for (const auto& f : same) {
    if (f.value != f.planned) return wrong(f.name, f.value, "the planned ", f.planned);
  }
  const bool one_shape = (plan.selection.kernel->traits & ATTNMUX_KERNEL_ONE_SHAPE) != 0;
  for (const auto& f : at_most) {
    if (f.value > f.planned) return wrong(f.name, f.value, "at most the planned ", f.planned);
    if (one_shape && f.value < f.planned) return wrong(f.name, f.value, "(this kernel serves one shape) ", f.planned);
  }
  return one_shape ? check_same_layout(plan, p, error) : ATTNMUX_OK;
}

}  // namespace

extern "C" {

attnmux_code attnmux_attention(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                               const attnmux_tensor* out, const attnmux_options* options, const attnmux_exec* exec,
                               attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    const attnmux_options* o = nullptr;
    ATTNMUX_TRY(read_options(options, o, error));
    Problem p;
    ATTNMUX_TRY(make_problem(q, k, v, out, *o, Pointers::kRequired, p, error));
    attnmux_exec e;
    ATTNMUX_TRY(read_exec(exec, p, e, error));
    const int32_t threads = threads_of(e);
    if (environment().verbose_dispatch) log_choice(p, *o, threads);
    Selection selection;
    ATTNMUX_TRY(select(p, *o, selection, error));
    Prepared prepared;
    ATTNMUX_TRY(prepared.make(*selection.kernel, p, error));
    return run_kernel(*selection.kernel, prepared, p, e, threads, error);
  });
}

attnmux_code attnmux_plan_create(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                                 const attnmux_tensor* out, const attnmux_options* options, const attnmux_exec* exec,
                                 attnmux_plan** plan, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    if (plan == nullptr) return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("plan is a null pointer"));
    *plan = nullptr;
    ATTNMUX_TRY(check_environment(error));
    const attnmux_options* o = nullptr;
    ATTNMUX_TRY(read_options(options, o, error));
    Problem p;
    ATTNMUX_TRY(make_problem(q, k, v, out, *o, Pointers::kOptional, p, error));
    attnmux_exec e;
    ATTNMUX_TRY(read_exec(exec, p, e, error));
    const int32_t threads = threads_of(e);
    if (environment().verbose_dispatch) log_choice(p, *o, threads);
    Selection selection;
    ATTNMUX_TRY(select(p, *o, selection, error));
    Prepared prepared;
    ATTNMUX_TRY(prepared.make(*selection.kernel, p, error));
    const size_t needed = workspace_needed(*selection.kernel, prepared, p, threads);
    *plan = new attnmux_plan{p, selection, std::move(prepared), threads, needed};
    return ATTNMUX_OK;
  });
}

attnmux_code attnmux_plan_run(const attnmux_plan* plan, const attnmux_tensor* q, const attnmux_tensor* k,
                              const attnmux_tensor* v, const attnmux_tensor* out, const attnmux_options* options,
                              const attnmux_exec* exec, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    if (plan == nullptr)
      return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("plan is empty; make one with plan()"));
    const attnmux_options* o = nullptr;
    ATTNMUX_TRY(read_options(options, o, error));
    Problem p;
    ATTNMUX_TRY(make_problem(q, k, v, out, *o, Pointers::kRequired, p, error));
    ATTNMUX_TRY(check_fits(*plan, p, error));
    attnmux_exec e;
    ATTNMUX_TRY(read_exec(exec, p, e, error));
    const Kernel& kernel = *plan->selection.kernel;
    if (kernel.check != nullptr && kernel.check(&p, nullptr) == 0) {
      Reason reason{};
      kernel.check(&p, &reason);
      return fail(error, ATTNMUX_UNSUPPORTED,
                  ATTNMUX_MESSAGE("plan for " << kernel.name << " cannot run this: " << reason.text));
    }
    // Never more threads than the plan's workspace was made for.
    const int32_t wanted = e.parallel_for != nullptr ? e.num_threads
                           : e.num_threads > 0       ? e.num_threads
                                                     : plan->num_threads;
    const int32_t at_most = wanted < plan->num_threads ? wanted : plan->num_threads;
    return run_kernel(kernel, plan->prepared, p, e, at_most, error);
  });
}

void attnmux_plan_release(attnmux_plan* plan) { delete plan; }
size_t attnmux_plan_workspace_bytes(const attnmux_plan* plan) { return plan == nullptr ? 0 : plan->workspace_bytes; }
const char* attnmux_plan_kernel(const attnmux_plan* plan) {
  return plan == nullptr ? "" : plan->selection.kernel->name;
}
uint16_t attnmux_plan_backend(const attnmux_plan* plan) {
  return plan == nullptr ? uint16_t{0} : plan->selection.backend;
}

}  // extern "C"
