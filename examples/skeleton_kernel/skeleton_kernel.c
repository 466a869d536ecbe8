/* SPDX-License-Identifier: Apache-2.0 */
/* The copyable start of a kernel of your own: a backend named "skeleton.plain" in a shared object that does not link to
 * attnmux. Load it with attnmux_load_plugin, attnmux::load_plugin or `attnmux --plugin FILE …`; it is then listed,
 * explained, verified and benchmarked like any other.
 *
 * It computes softmax(scale · q kᵀ) v in fp32, one query at a time, and claims the few features it has code for. A
 * problem with any other feature never reaches it: the library refuses it with a reason. */
#include <attnmux/c/plugin.h>
#include <math.h>
#include <stdio.h>

/* What one task needs while it works on a query: a score per key. */
static size_t row_bytes(const attnmux_problem* p) { return ((size_t)p->seqlen_kv * sizeof(float) + 63) / 64 * 64; }

/* Scratch for every task that may run at once. Never falls when B, Sq or Skv rises. */
static size_t workspace_bytes(const attnmux_problem* p, int32_t num_threads) {
  return row_bytes(p) * (size_t)num_threads;
}

/* What the claims below cannot say. A yes here promises that run succeeds. */
static int32_t check(const attnmux_problem* p, attnmux_reason* reason) {
  if (p->head_dim <= 512 && p->head_dim_v <= 512) return 1;
  if (reason != NULL)
    snprintf(reason->text, sizeof reason->text, "takes a head_dim of at most 512, this one is %lld",
             (long long)p->head_dim);
  return 0;
}

static void attend_one_query(const attnmux_problem* p, int64_t b, int64_t head, int64_t query, float* scores) {
  const int64_t kv_head = head / (p->num_heads_q / p->num_heads_kv);
  const float* q = (const float*)p->q.data + b * p->q.strides[0] + query * p->q.strides[1] + head * p->q.strides[2];
  const float* k = (const float*)p->k.data + b * p->k.strides[0] + kv_head * p->k.strides[2];
  const float* v = (const float*)p->v.data + b * p->v.strides[0] + kv_head * p->v.strides[2];
  float* out = (float*)p->out.data + b * p->out.strides[0] + query * p->out.strides[1] + head * p->out.strides[2];

  float maximum = -INFINITY;
  for (int64_t j = 0; j < p->seqlen_kv; ++j) {
    float product = 0;
    for (int64_t d = 0; d < p->head_dim; ++d) product += q[d] * k[j * p->k.strides[1] + d];
    scores[j] = product * (float)p->scale;
    if (!(scores[j] <= maximum)) maximum = scores[j]; /* NaN wins, and reaches the output */
  }
  float sum = 0;
  for (int64_t j = 0; j < p->seqlen_kv; ++j) sum += scores[j] = expf(scores[j] - maximum);

  for (int64_t d = 0; d < p->head_dim_v; ++d) out[d] = 0; /* a row without keys gives 0 */
  for (int64_t j = 0; j < p->seqlen_kv; ++j) {
    for (int64_t d = 0; d < p->head_dim_v; ++d) out[d] += scores[j] / sum * v[j * p->v.strides[1] + d];
  }
  if (p->lse.dtype != 0) {
    float* lse = (float*)p->lse.data + b * p->lse.strides[0] + head * p->lse.strides[1] + query * p->lse.strides[2];
    *lse = p->seqlen_kv == 0 ? -INFINITY : maximum + logf(sum);
  }
}

struct work {
  const attnmux_problem* problem;
  const attnmux_run_context* context;
  int64_t num_tasks;
};

/* Task t does the rows t, t + num_tasks, …: the result does not depend on how many tasks there are. */
static void run_task(void* arg, int64_t task) {
  const struct work* work = (const struct work*)arg;
  const attnmux_problem* p = work->problem;
  float* scores = (float*)((char*)work->context->workspace + (size_t)task * row_bytes(p));
  const int64_t rows = p->batch * p->num_heads_q * p->seqlen_q;
  for (int64_t row = task; row < rows; row += work->num_tasks) {
    attend_one_query(p, row / p->seqlen_q / p->num_heads_q, row / p->seqlen_q % p->num_heads_q, row % p->seqlen_q,
                     scores);
  }
}

static attnmux_code run(const attnmux_problem* p, const attnmux_run_context* context, attnmux_error* error) {
  (void)error;
  struct work work = {p, context, context->num_threads};
  return context->parallel_for(context->pool, work.num_tasks, run_task, &work) == 0 ? ATTNMUX_OK
                                                                                    : ATTNMUX_EXECUTOR_FAILED;
}

/* The one symbol of the shared object. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
attnmux_code
attnmux_plugin_init(const attnmux_host* host, attnmux_error* error) {
  const attnmux_kernel kernels[] = {{
      .struct_size = sizeof(attnmux_kernel),
      .device_type = ATTNMUX_CPU,
      .name = "skeleton_plain_fp32",
      .features = ATTNMUX_SCALE | ATTNMUX_LSE | ATTNMUX_GQA | ATTNMUX_HEAD_DIM_V,
      .dtypes = 1u << ATTNMUX_FP32,
      .accuracy = {[ATTNMUX_FP32] = ATTNMUX_EXACT},
      .check = check,
      .workspace_bytes = workspace_bytes,
      .run = run,
  }};
  const attnmux_backend_desc backend = {
      .struct_size = sizeof(attnmux_backend_desc),
      .num_kernels = 1,
      .name = "skeleton.plain",
      .promise = "the copyable start of a kernel",
      .kernels = kernels,
  };
  return host->register_backend(&backend, error);
}
