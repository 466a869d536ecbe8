// SPDX-License-Identifier: Apache-2.0
// The C ABI for tools: explain, describe, the oracle, version.
#include <attnmux/version.h>

#include "api/guard.h"
#include "api/run.h"
#include "dispatch/describe.h"
#include "dispatch/environment.h"
#include "dispatch/explain.h"
#include "dispatch/problem.h"
#include "kernels/reference/reference.h"

using namespace attnmux;

extern "C" {

attnmux_code attnmux_explain(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                             const attnmux_tensor* out, const attnmux_options* options, const attnmux_exec* exec,
                             uint32_t flags, attnmux_write write, void* user, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    if (write == nullptr) return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("write is a null pointer"));
    if ((flags & ~uint32_t{ATTNMUX_EXPLAIN_ALL | ATTNMUX_EXPLAIN_JSON}) != 0) {
      return fail(error, ATTNMUX_INVALID_ARGUMENT,
                  ATTNMUX_MESSAGE("flags is "
                                  << flags << "; accepted are ATTNMUX_EXPLAIN_ALL (1) and ATTNMUX_EXPLAIN_JSON (2)"));
    }
    const attnmux_options* o = nullptr;
    ATTNMUX_TRY(read_options(options, o, error));
    Problem p;
    ATTNMUX_TRY(make_problem(q, k, v, out, *o, Pointers::kOptional, p, error));
    attnmux_exec e;
    ATTNMUX_TRY(read_exec(exec, p, e, error));
    Explained explained;
    ATTNMUX_TRY(explain_choice(p, *o, threads_of(e), explained, error));
    const std::string text = (flags & ATTNMUX_EXPLAIN_JSON) != 0
                                 ? explain_json(explained) + "\n"
                                 : explain_text(explained, (flags & ATTNMUX_EXPLAIN_ALL) != 0);
    write(user, text.data(), text.size());
    return ATTNMUX_OK;
  });
}

attnmux_code attnmux_describe(int32_t topic, attnmux_write write, void* user, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    if (write == nullptr) return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("write is a null pointer"));
    std::string text;
    switch (topic) {
      case ATTNMUX_DESCRIBE_BACKENDS:
        text = describe_backends();
        break;
      case ATTNMUX_DESCRIBE_MACHINE:
        text = describe_machine();
        break;
      case ATTNMUX_DESCRIBE_ABI:
        text = describe_abi();
        break;
      default:
        return fail(error, ATTNMUX_INVALID_ARGUMENT,
                    ATTNMUX_MESSAGE("topic is " << topic << "; accepted are 1 (backends), 2 (machine), 3 (abi)"));
    }
    text += "\n";
    write(user, text.data(), text.size());
    return ATTNMUX_OK;
  });
}

attnmux_code attnmux_oracle(int32_t kind, const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                            const attnmux_options* options, double* out, double* lse, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    const auto wrong = [&](const Message& what) { return fail(error, ATTNMUX_INVALID_ARGUMENT, what); };
    if (kind != ATTNMUX_ORACLE_FP64 && kind != ATTNMUX_ORACLE_PLAIN) {
      return wrong(ATTNMUX_MESSAGE("kind is " << kind << "; accepted are 0 (fp64) and 1 (plain)"));
    }
    const attnmux_options* o = nullptr;
    ATTNMUX_TRY(read_options(options, o, error));
    Problem p;
    ATTNMUX_TRY(make_problem_without_output(q, k, v, *o, p, error));
    if (p.device_type != ATTNMUX_CPU) return wrong(ATTNMUX_MESSAGE("q is on a device; the oracle reads cpu tensors"));
    const bool empty = p.q.shape[0] == 0 || p.q.shape[1] == 0 || p.num_heads_q == 0;
    if (out == nullptr && !empty) return wrong(ATTNMUX_MESSAGE("out is a null pointer"));
    (kind == ATTNMUX_ORACLE_FP64 ? reference_attention : plain_attention)(p, out, lse);
    return ATTNMUX_OK;
  });
}

const char* attnmux_version(void) { return ATTNMUX_VERSION_STRING; }
uint32_t attnmux_abi_version(void) { return ATTNMUX_ABI_VERSION; }

}  // extern "C"
