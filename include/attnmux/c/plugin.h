/* SPDX-License-Identifier: Apache-2.0 */
/* What a kernel is. The kernels inside attnmux and those of plugins implement the same struct. See
 * docs/adding_a_kernel.md and examples/skeleton_kernel/. */
#ifndef ATTNMUX_C_PLUGIN_H
#define ATTNMUX_C_PLUGIN_H

#include <attnmux/c/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One validated attention call in canonical form. Every view has its full rank and its true strides; a dimension
 * that is broadcast has stride 0. Packed sequences: q, k, v, out have shape (1, T, H, D), `batch` counts the
 * sequences, and seqlen_q, seqlen_kv are the maxima. Tensors that are not given have dtype 0. */
typedef struct attnmux_problem {
  uint32_t struct_size;
  int32_t dtype; /* of q, k, v and out; where it is e4m3, out is bf16 */
  uint64_t features;
  int32_t device_type;
  int32_t device_id;
  int64_t batch, seqlen_q, seqlen_kv, num_heads_q, num_heads_kv, head_dim, head_dim_v;
  double scale;   /* always filled in */
  double softcap; /* 0: off */
  double dropout_p;
  uint64_t dropout_seed, dropout_offset;
  /* Causal and window, merged: query i keeps the keys in [i + delta - window_left, i + delta + window_right];
   * -1 is unlimited; causal alone is (-1, 0). delta is 0 for top_left, key length - query length for bottom_right. */
  int64_t window_left, window_right;
  int32_t align; /* ATTNMUX_ALIGN_NONE: both corners mean the same */
  int32_t reserved;
  attnmux_tensor q, k, v, out;                    /* (B, S, H, D) */
  attnmux_tensor lse;                             /* (B, Hq, Sq) fp32; packed (1, Hq, T) */
  attnmux_tensor key_lengths;                     /* (B) int32 */
  attnmux_tensor key_padding;                     /* (B, Skv) one byte each */
  attnmux_tensor dense_mask;                      /* (B, Hq, Sq, Skv) one byte each */
  attnmux_tensor bias;                            /* (B, Hq, Sq, Skv) fp32, fp16 or bf16 */
  attnmux_tensor cu_seqlens_q;                    /* (B+1) int32 */
  attnmux_tensor cu_seqlens_kv;                   /* (B+1) int32 */
  attnmux_tensor q_descale, k_descale, v_descale; /* (B, Hkv) fp32; not given: 1 */
} attnmux_problem;

/* Where a kernel runs. A kernel allocates nothing and creates no thread; scratch comes from `workspace`, which is
 * aligned to 64 bytes. `num_tasks` of parallel_for never exceeds num_threads, so scratch is indexed by task;
 * a serial parallel_for is a correct one, so tasks must not wait for each other. */
typedef struct attnmux_run_context {
  uint32_t struct_size;
  int32_t num_threads;
  void* stream;
  void* workspace;
  size_t workspace_bytes;
  attnmux_parallel_for parallel_for;
  void* pool;
  void* prepared; /* `state` of the kernel's prepare; null where it has none */
} attnmux_run_context;

/* What `prepare` leaves for one problem. */
typedef struct attnmux_prepared {
  void* state;            /* the kernel's own; given back to its `release`. Null: nothing to give back */
  size_t workspace_bytes; /* of this very problem; takes the place of workspace_bytes() */
} attnmux_prepared;

/* Why a kernel does not run: one sentence that a person can act on. */
typedef struct attnmux_reason {
  char text[256];
} attnmux_reason;

/* Accuracy classes; kernels state one per input dtype. */
enum {
  ATTNMUX_ACCURACY_NONE = 0,
  ATTNMUX_EXACT = 1,      /* products, softmax and P in fp32 or better; only the output is rounded */
  ATTNMUX_16BIT = 2,      /* P or a product rounded to 16 bits */
  ATTNMUX_QUANTIZED = 3,  /* INT8 or FP8 products */
  ATTNMUX_APPROXIMATE = 4 /* skips work that is not zero */
};

/* Traits of a kernel. */
#define ATTNMUX_KERNEL_ONE_SHAPE                                                      \
  (UINT32_C(1) << 0) /* what it prepares is for these shapes, strides and masks alone \
                      */

typedef struct attnmux_kernel {
  uint32_t struct_size;
  int32_t device_type;
  const char* name;
  uint64_t features;                     /* what it claims; a problem with any other feature never reaches it */
  uint32_t dtypes;                       /* bits 1 << ATTNMUX_FP32, … */
  uint8_t accuracy[ATTNMUX_DTYPE_COUNT]; /* per input dtype */
  /* Can this machine run it at all? Null: always. 1 is yes; on 0 `reason` is filled in, unless it is null. */
  int32_t (*available)(attnmux_reason* reason);
  /* What the claims cannot say: limits on head_dim, strides, … Null: none. A yes promises that run succeeds. It looks
   * at shapes and strides, never at the values behind pointers, and if it accepts a problem it accepts every smaller B,
   * Sq and Skv, unless it has the trait ATTNMUX_KERNEL_ONE_SHAPE. */
  int32_t (*check)(const attnmux_problem* problem, attnmux_reason* reason);
  /* Bytes of scratch; null: none. Never falls when B, Sq or Skv rises; does not depend on values behind pointers. */
  size_t (*workspace_bytes)(const attnmux_problem* problem, int32_t num_threads);
  attnmux_code (*run)(const attnmux_problem* problem, const attnmux_run_context* context, attnmux_error* error);
  uint32_t traits;
  uint32_t reserved;
  /* What takes long the first time: a graph to compile, a module to load. Null: nothing does. A plan calls it once and
   * keeps the answer for all its runs; a call without a plan calls it each time, so the kernel remembers. May fail with
   * ATTNMUX_UNSUPPORTED, in the words of what it asked, where only trying tells. `release` takes a state back. */
  attnmux_code (*prepare)(const attnmux_problem* problem, attnmux_prepared* prepared, attnmux_error* error);
  void (*release)(void* state);
} attnmux_kernel;

/* A backend of one's own: its name has a dot ("acme.flash"); it is chosen by name only, never by `native` or `auto`. */
typedef struct attnmux_backend_desc {
  uint32_t struct_size;
  uint32_t num_kernels;
  const char* name;
  const char* promise;           /* one line: what the name stands for */
  const attnmux_kernel* kernels; /* in order of preference */
} attnmux_backend_desc;

/* What the library offers to a plugin, so that a plugin need not link to it. */
typedef struct attnmux_host {
  uint32_t struct_size;
  uint32_t abi_version; /* ATTNMUX_ABI_VERSION of the library */
  attnmux_code (*register_backend)(const attnmux_backend_desc* backend, attnmux_error* error);
} attnmux_host;

#define ATTNMUX_ABI_VERSION 1

/* The one symbol that a plugin exports, under this name. */
typedef attnmux_code (*attnmux_plugin_init_fn)(const attnmux_host* host, attnmux_error* error);
#define ATTNMUX_PLUGIN_INIT attnmux_plugin_init

#ifdef __cplusplus
}
#endif
#endif
