/* SPDX-License-Identifier: Apache-2.0 */
/* Plain data of the attnmux C ABI: tensors, the options of a call, where it runs, and how it fails.
 *
 * Rules that hold for every struct here: it is flat; all-zero but for `struct_size` is a valid default; a bit in `set`
 * says which fields are meant; new fields go at the end; a field or bit that the library does not know is refused
 * unless it is zero, so an argument is never dropped in silence. */
#ifndef ATTNMUX_C_TYPES_H
#define ATTNMUX_C_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Element types. A dtype of 0 marks a tensor that is not given. */
enum {
  ATTNMUX_FP32 = 1,
  ATTNMUX_FP16 = 2, /* IEEE binary16 */
  ATTNMUX_BF16 = 3,
  ATTNMUX_FP64 = 4,
  ATTNMUX_BOOL = 5, /* one byte; zero is false */
  ATTNMUX_UINT8 = 6,
  ATTNMUX_INT32 = 7,
  ATTNMUX_E4M3 = 8, /* OCP FP8 E4M3FN: q, k and v, whose out is bf16 */
  ATTNMUX_DTYPE_COUNT = 9
};

/* Device types, with DLPack's numbers. */
enum { ATTNMUX_CPU = 1, ATTNMUX_CUDA = 2 };

/* A view of a tensor that somebody else owns. Strides count elements. A null pointer is legal for planning. */
typedef struct attnmux_tensor {
  void* data; /* only `out` and `lse` are ever written to */
  int32_t dtype;
  int32_t device_type;
  int32_t device_id;
  int32_t ndim; /* 0 … 4 */
  int64_t shape[4];
  int64_t strides[4];
} attnmux_tensor;

/* Features: one bit per thing that a call can ask for. The same bit stands in attnmux_options.set, in
 * attnmux_problem.features, in the claim of a kernel, in refusals and in the table of backends. */
#define ATTNMUX_MASK_CAUSAL (UINT64_C(1) << 0)
#define ATTNMUX_MASK_WINDOW (UINT64_C(1) << 1)
#define ATTNMUX_MASK_KEY_LENGTHS (UINT64_C(1) << 2)
#define ATTNMUX_MASK_KEY_PADDING (UINT64_C(1) << 3)
#define ATTNMUX_MASK_DENSE (UINT64_C(1) << 4)
#define ATTNMUX_BIAS (UINT64_C(1) << 5)
#define ATTNMUX_SOFTCAP (UINT64_C(1) << 6)
#define ATTNMUX_SCALE (UINT64_C(1) << 7) /* a scale other than head_dim^-1/2 */
#define ATTNMUX_LSE (UINT64_C(1) << 8)
#define ATTNMUX_DROPOUT (UINT64_C(1) << 9)
#define ATTNMUX_VARLEN (UINT64_C(1) << 10)
/* Seen from the shapes, never set by the caller. */
#define ATTNMUX_GQA (UINT64_C(1) << 11)
#define ATTNMUX_HEAD_DIM_V (UINT64_C(1) << 12) /* head_dim_v differs from head_dim */
/* The elements of q, k or v are to be multiplied by a factor. */
#define ATTNMUX_DESCALE (UINT64_C(1) << 13)
#define ATTNMUX_FEATURE_COUNT 14
/* A permission, not a feature: the automatic choice may go below the 16-bit accuracy class. */
#define ATTNMUX_ALLOW_LOSSY (UINT64_C(1) << 63)

/* Where the diagonal of causal and window masks lies when there are more keys than queries, or fewer. */
enum {
  ATTNMUX_ALIGN_NONE = 0,        /* legal only where both corners mean the same */
  ATTNMUX_ALIGN_TOP_LEFT = 1,    /* PyTorch: query 0 sits at key 0 */
  ATTNMUX_ALIGN_BOTTOM_RIGHT = 2 /* FlashAttention, MLX: the last query sits at the last key */
};

/* What is computed. Shapes: B batch, Sq and Skv sequence lengths, Hq and Hkv heads. */
typedef struct attnmux_options {
  uint32_t struct_size;   /* sizeof(attnmux_options) */
  uint16_t backend;       /* from attnmux_backend_find; 0: layer, scope, process default decide */
  uint16_t layer_backend; /* what the layer itself asks for; 0: nothing */
  uint16_t kernel;        /* 0, or from attnmux_kernel_find: that kernel of the backend, for harnesses */
  uint16_t reserved[3];
  char layer_role[16]; /* "self", "dit.joint", …: at most 15 characters and a zero */
  uint64_t set;        /* which of the fields below are meant: ATTNMUX_MASK_CAUSAL | … */
  uint64_t conflicts;  /* feature bits that a combination of masks gave twice; refused by the call */
  double scale;        /* any finite value; default head_dim^-1/2 */
  double softcap;      /* s = softcap·tanh(scale·q·k / softcap); 0 is off */
  double dropout_p;    /* in [0, 1); needs the seed */
  uint64_t dropout_seed;
  uint64_t dropout_offset;
  int64_t window_left, window_right; /* keys kept left and right of the diagonal; -1 is unlimited */
  int32_t causal_align, window_align;
  int64_t max_seqlen_q, max_seqlen_kv; /* varlen: upper bounds; 0: the number of packed tokens */
  attnmux_tensor key_lengths;          /* (B) int32 */
  attnmux_tensor key_padding;          /* (B, Skv) bool or uint8, true = attend */
  attnmux_tensor dense_mask;           /* broadcastable to (B, Hq, Sq, Skv), bool or uint8, true = attend */
  attnmux_tensor bias;                 /* broadcastable to (B, Hq, Sq, Skv), added to the scores; fp32, fp16, bf16,
                                          for fp64 inputs also fp64 */
  attnmux_tensor lse;                  /* output (B, Hq, Sq) fp32, natural log; (Hq, T) for packed sequences */
  attnmux_tensor cu_seqlens_q, cu_seqlens_kv; /* (B+1) int32, rising from 0 to T */
  /* (B, Hkv) fp32, for e4m3 tensors: what their elements are multiplied by; that of q is the same for all query heads
   * of a key head. Those not given are 1. */
  attnmux_tensor q_descale, k_descale, v_descale;
} attnmux_options;

/* Runs body(arg, task) for every task in [0, num_tasks) and returns when all are done; 0 is success. */
typedef int32_t (*attnmux_parallel_for)(void* pool, int64_t num_tasks, void (*body)(void* arg, int64_t task),
                                        void* arg);

/* Workspaces of CUDA calls, in the order of the stream: the memory is used by work that is queued on `stream` between
 * the two calls. Null is "out of memory"; the pointer is aligned to 256 bytes, as cudaMallocAsync's is. */
typedef void* (*attnmux_stream_allocate)(void* user, int32_t device_id, void* stream, size_t bytes);
typedef void (*attnmux_stream_deallocate)(void* user, int32_t device_id, void* stream, void* pointer, size_t bytes);

/* Fields of attnmux_exec that are meant. */
#define ATTNMUX_EXEC_WORKSPACE (UINT64_C(1) << 0) /* used exclusively, also when it is empty */

/* Streams, as in DLPack: null is absent; these two name CUDA's own default streams. */
#define ATTNMUX_STREAM_LEGACY ((void*)(uintptr_t)1)
#define ATTNMUX_STREAM_PER_THREAD ((void*)(uintptr_t)2)

/* Where it runs. */
typedef struct attnmux_exec {
  uint32_t struct_size; /* sizeof(attnmux_exec) */
  int32_t num_threads;  /* threads of parallel_for, at least 1; without parallel_for a cap on the library's own pool, 0:
                           none */
  uint64_t set;
  void* stream; /* CUDA tensors need one; CPU tensors take none */
  void* workspace;
  size_t workspace_bytes;
  attnmux_parallel_for parallel_for; /* null: the library's own thread pool */
  void* pool;
  /* Where a CUDA call without a workspace gets it; null: from a memory pool of the library's own. Both or neither. */
  attnmux_stream_allocate stream_allocate;
  attnmux_stream_deallocate stream_deallocate;
  void* stream_user;
} attnmux_exec;

/* Result codes. */
typedef int32_t attnmux_code;
enum {
  ATTNMUX_OK = 0,
  ATTNMUX_INVALID_ARGUMENT = 1, /* the call itself is wrong, for every backend */
  ATTNMUX_UNKNOWN_BACKEND = 2,
  ATTNMUX_UNAVAILABLE = 3,     /* the backend cannot run on this machine or in this build */
  ATTNMUX_UNSUPPORTED = 4,     /* the backend runs here, but not this problem */
  ATTNMUX_BAD_ENVIRONMENT = 5, /* an ATTNMUX_* variable has a value that is not accepted */
  ATTNMUX_OUT_OF_MEMORY = 6,
  ATTNMUX_DEVICE_ERROR = 7,
  ATTNMUX_EXECUTOR_FAILED = 8, /* the caller's parallel_for, or a task, failed */
  ATTNMUX_INTERNAL = 9
};

/* Filled by a call that fails; the caller's own, so that it survives goroutines, coroutines and thread pools. */
typedef struct attnmux_error {
  attnmux_code code;
  uint32_t length;   /* of message, without the zero */
  char message[504]; /* always zero-terminated; "[attention] …" */
} attnmux_error;

#ifdef __cplusplus
}
#endif
#endif
