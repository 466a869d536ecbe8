/* SPDX-License-Identifier: Apache-2.0 */
/* The attnmux C ABI: the only symbols that the library exports. The C++ API (attnmux.h) is inline code over it.
 *
 * Every function may be called from any thread at any time. Functions that return attnmux_code fill `error`, which may
 * be null, when they fail, and leave it alone when they succeed. No C++ exception leaves the library. */
#ifndef ATTNMUX_C_H
#define ATTNMUX_C_H

#include <attnmux/c/plugin.h>
#include <attnmux/c/types.h>

#if defined(ATTNMUX_BUILDING) || !defined(_WIN32)
#define ATTNMUX_API __attribute__((visibility("default")))
#else
#define ATTNMUX_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- One call ----------------------------------------------------------------------------------------------------
 * out = softmax(mask(scale · q kᵀ) + bias) v. q (B,Sq,Hq,D), k (B,Skv,Hkv,D), v (B,Skv,Hkv,Dv), out (B,Sq,Hq,Dv);
 * packed sequences (T,H,D). Any strides; the last dimension is contiguous. `options` and `exec` may be null. */
ATTNMUX_API attnmux_code attnmux_attention(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                                           const attnmux_tensor* out, const attnmux_options* options,
                                           const attnmux_exec* exec, attnmux_error* error);

/* A choice made once. `exec` gives the number of threads. Plans are immutable: any number of threads may run one at
 * once, each with its own workspace. Release what create returned. */
typedef struct attnmux_plan attnmux_plan;
ATTNMUX_API attnmux_code attnmux_plan_create(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                                             const attnmux_tensor* out, const attnmux_options* options,
                                             const attnmux_exec* exec, attnmux_plan** plan, attnmux_error* error);
ATTNMUX_API attnmux_code attnmux_plan_run(const attnmux_plan* plan, const attnmux_tensor* q, const attnmux_tensor* k,
                                          const attnmux_tensor* v, const attnmux_tensor* out,
                                          const attnmux_options* options, const attnmux_exec* exec,
                                          attnmux_error* error);
ATTNMUX_API void attnmux_plan_release(attnmux_plan* plan);
ATTNMUX_API size_t attnmux_plan_workspace_bytes(const attnmux_plan* plan);
ATTNMUX_API const char* attnmux_plan_kernel(const attnmux_plan* plan);
ATTNMUX_API uint16_t attnmux_plan_backend(const attnmux_plan* plan);

/* Tells what attnmux_attention would choose and why, kernel by kernel, as text or as one JSON document. A valid problem
 * that nothing can run is an answer, not an error. `write` may be called several times. */
typedef void (*attnmux_write)(void* user, const char* text, size_t length);
enum { ATTNMUX_EXPLAIN_ALL = 1, ATTNMUX_EXPLAIN_JSON = 2 };
ATTNMUX_API attnmux_code attnmux_explain(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                                         const attnmux_tensor* out, const attnmux_options* options,
                                         const attnmux_exec* exec, uint32_t flags, attnmux_write write, void* user,
                                         attnmux_error* error);

/* ---- Names ------------------------------------------------------------------------------------------------------ */
ATTNMUX_API uint16_t attnmux_backend_find(const char* name, size_t length); /* 0: no such name */
ATTNMUX_API const char* attnmux_backend_name(uint16_t backend);             /* null: no such id */
/* Like find, but fails with the closest names. */
ATTNMUX_API attnmux_code attnmux_backend_named(const char* name, size_t length, uint16_t* backend,
                                               attnmux_error* error);
/* Can it run on this machine at all? If not, the error says what is missing. */
ATTNMUX_API attnmux_code attnmux_backend_available(uint16_t backend, attnmux_error* error);
ATTNMUX_API uint16_t attnmux_kernel_find(const char* name, size_t length); /* 0: no such kernel */

/* ---- Switching -------------------------------------------------------------------------------------------------- */
ATTNMUX_API attnmux_code attnmux_set_default_backend(uint16_t backend,
                                                     attnmux_error* error); /* 0: ATTNMUX_BACKEND, else native */
ATTNMUX_API attnmux_code attnmux_default_backend(uint16_t* backend, attnmux_error* error);
/* What ATTNMUX_FORCE_BACKEND names; 0 when it is not set. */
ATTNMUX_API attnmux_code attnmux_forced_backend(uint16_t* backend, attnmux_error* error);

/* A scope of this thread: calls inside use `backend`, those of layers with a matching role if `role` is not null.
 * A role matches itself and everything below it: "dit" matches "dit.joint". Scopes nest. */
typedef struct attnmux_scope {
  uint32_t slot;
  uint32_t generation;
} attnmux_scope;
ATTNMUX_API attnmux_code attnmux_scope_enter(uint16_t backend, const char* role, size_t role_length,
                                             attnmux_scope* scope, attnmux_error* error);
ATTNMUX_API void attnmux_scope_leave(attnmux_scope scope);

/* The scopes of a thread as a value, to be installed on another; leave the installed scope as any other. */
typedef struct attnmux_context {
  uint32_t struct_size;
  uint32_t count;
  struct {
    uint16_t backend;
    char role[16];
  } entries[32]; /* innermost last */
} attnmux_context;
ATTNMUX_API attnmux_code attnmux_context_capture(attnmux_context* context, attnmux_error* error);
ATTNMUX_API attnmux_code attnmux_context_enter(const attnmux_context* context, attnmux_scope* scope,
                                               attnmux_error* error);

/* ---- The process ------------------------------------------------------------------------------------------------ */
ATTNMUX_API attnmux_code attnmux_check_environment(attnmux_error* error); /* every ATTNMUX_* variable */
ATTNMUX_API attnmux_code attnmux_set_num_threads(int32_t num_threads, attnmux_error* error); /* 0: all cores */
ATTNMUX_API attnmux_code attnmux_num_threads(int32_t* num_threads, attnmux_error* error);
ATTNMUX_API void attnmux_release_workspace(void); /* frees what no call is using: cached arenas, pools of GPUs */
/* Receives one line without its newline; null restores stderr. */
typedef void (*attnmux_log_sink)(void* user, const char* line, size_t length);
ATTNMUX_API void attnmux_set_log_sink(attnmux_log_sink sink, void* user);
/* Replaces how workspaces of CPU calls are allocated when the caller gives none; null restores the default. A CUDA
 * call's are allocated in the order of its stream: attnmux_exec.stream_allocate. */
typedef void* (*attnmux_allocate)(void* user, int32_t device_type, size_t bytes, size_t alignment);
typedef void (*attnmux_deallocate)(void* user, int32_t device_type, void* pointer, size_t bytes);
ATTNMUX_API attnmux_code attnmux_set_allocator(attnmux_allocate allocate, attnmux_deallocate deallocate, void* user,
                                               attnmux_error* error);

/* ---- Plugins ---------------------------------------------------------------------------------------------------- */
ATTNMUX_API attnmux_code attnmux_load_plugin(const char* path, attnmux_error* error);
ATTNMUX_API attnmux_code attnmux_register_backend(const attnmux_backend_desc* backend, attnmux_error* error);

/* ---- For tools -------------------------------------------------------------------------------------------------- */
enum {
  ATTNMUX_DESCRIBE_BACKENDS = 1, /* array: name, family, available, kernels, reason, accuracy, … */
  ATTNMUX_DESCRIBE_MACHINE = 2,  /* object: cpu, isa, threads, devices */
  ATTNMUX_DESCRIBE_ABI = 3       /* object: sizes and offsets of the C structs */
};
ATTNMUX_API attnmux_code attnmux_describe(int32_t topic, attnmux_write write, void* user, attnmux_error* error);

/* The oracle, on CPU tensors. `out` is (B,Sq,Hq,Dv) and `lse` (B,Hq,Sq), contiguous ((T,Hq,Dv) and (Hq,T) packed); lse
 * may be null. FP64 computes everything in double. PLAIN is the textbook loop that tolerances are derived from: fp32
 * scores and softmax, P rounded to the input dtype, fp32 accumulation, output rounded to the input dtype. */
enum { ATTNMUX_ORACLE_FP64 = 0, ATTNMUX_ORACLE_PLAIN = 1 };
ATTNMUX_API attnmux_code attnmux_oracle(int32_t kind, const attnmux_tensor* q, const attnmux_tensor* k,
                                        const attnmux_tensor* v, const attnmux_options* options, double* out,
                                        double* lse, attnmux_error* error);

ATTNMUX_API const char* attnmux_version(void); /* "0.1.0" */
ATTNMUX_API uint32_t attnmux_abi_version(void);

#ifdef __cplusplus
}
#endif
#endif
