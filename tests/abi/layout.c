/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the size of every struct of the C ABI and the offset and size of each field. tests/abi/layout.txt holds what
 * it has to print: a struct may grow at its end, and nothing that is there may move. */
#include <attnmux/attnmux_c.h>
#include <stdio.h>

#define STRUCT(type) printf("%s: %zu\n", #type, sizeof(type))
#define FIELD(type, field) printf("  %s: %zu, %zu\n", #field, offsetof(type, field), sizeof(((type*)0)->field))

static void print_tensor(void) {
  STRUCT(attnmux_tensor);
  FIELD(attnmux_tensor, data);
  FIELD(attnmux_tensor, dtype);
  FIELD(attnmux_tensor, device_type);
  FIELD(attnmux_tensor, device_id);
  FIELD(attnmux_tensor, ndim);
  FIELD(attnmux_tensor, shape);
  FIELD(attnmux_tensor, strides);
}

static void print_options(void) {
  STRUCT(attnmux_options);
  FIELD(attnmux_options, struct_size);
  FIELD(attnmux_options, backend);
  FIELD(attnmux_options, layer_backend);
  FIELD(attnmux_options, kernel);
  FIELD(attnmux_options, reserved);
  FIELD(attnmux_options, layer_role);
  FIELD(attnmux_options, set);
  FIELD(attnmux_options, conflicts);
  FIELD(attnmux_options, scale);
  FIELD(attnmux_options, softcap);
  FIELD(attnmux_options, dropout_p);
  FIELD(attnmux_options, dropout_seed);
  FIELD(attnmux_options, dropout_offset);
  FIELD(attnmux_options, window_left);
  FIELD(attnmux_options, window_right);
  FIELD(attnmux_options, causal_align);
  FIELD(attnmux_options, window_align);
  FIELD(attnmux_options, max_seqlen_q);
  FIELD(attnmux_options, max_seqlen_kv);
  FIELD(attnmux_options, key_lengths);
  FIELD(attnmux_options, key_padding);
  FIELD(attnmux_options, dense_mask);
  FIELD(attnmux_options, bias);
  FIELD(attnmux_options, lse);
  FIELD(attnmux_options, cu_seqlens_q);
  FIELD(attnmux_options, cu_seqlens_kv);
  FIELD(attnmux_options, q_descale);
  FIELD(attnmux_options, k_descale);
  FIELD(attnmux_options, v_descale);
}

static void print_exec(void) {
  STRUCT(attnmux_exec);
  FIELD(attnmux_exec, struct_size);
  FIELD(attnmux_exec, num_threads);
  FIELD(attnmux_exec, set);
  FIELD(attnmux_exec, stream);
  FIELD(attnmux_exec, workspace);
  FIELD(attnmux_exec, workspace_bytes);
  FIELD(attnmux_exec, parallel_for);
  FIELD(attnmux_exec, pool);
  FIELD(attnmux_exec, stream_allocate);
  FIELD(attnmux_exec, stream_deallocate);
  FIELD(attnmux_exec, stream_user);
}

static void print_error(void) {
  STRUCT(attnmux_error);
  FIELD(attnmux_error, code);
  FIELD(attnmux_error, length);
  FIELD(attnmux_error, message);
}

static void print_problem(void) {
  STRUCT(attnmux_problem);
  FIELD(attnmux_problem, struct_size);
  FIELD(attnmux_problem, dtype);
  FIELD(attnmux_problem, features);
  FIELD(attnmux_problem, device_type);
  FIELD(attnmux_problem, device_id);
  FIELD(attnmux_problem, batch);
  FIELD(attnmux_problem, seqlen_q);
  FIELD(attnmux_problem, seqlen_kv);
  FIELD(attnmux_problem, num_heads_q);
  FIELD(attnmux_problem, num_heads_kv);
  FIELD(attnmux_problem, head_dim);
  FIELD(attnmux_problem, head_dim_v);
  FIELD(attnmux_problem, scale);
  FIELD(attnmux_problem, softcap);
  FIELD(attnmux_problem, dropout_p);
  FIELD(attnmux_problem, dropout_seed);
  FIELD(attnmux_problem, dropout_offset);
  FIELD(attnmux_problem, window_left);
  FIELD(attnmux_problem, window_right);
  FIELD(attnmux_problem, align);
  FIELD(attnmux_problem, reserved);
  FIELD(attnmux_problem, q);
  FIELD(attnmux_problem, k);
  FIELD(attnmux_problem, v);
  FIELD(attnmux_problem, out);
  FIELD(attnmux_problem, lse);
  FIELD(attnmux_problem, key_lengths);
  FIELD(attnmux_problem, key_padding);
  FIELD(attnmux_problem, dense_mask);
  FIELD(attnmux_problem, bias);
  FIELD(attnmux_problem, cu_seqlens_q);
  FIELD(attnmux_problem, cu_seqlens_kv);
  FIELD(attnmux_problem, q_descale);
  FIELD(attnmux_problem, k_descale);
  FIELD(attnmux_problem, v_descale);
}

static void print_run_context(void) {
  STRUCT(attnmux_run_context);
  FIELD(attnmux_run_context, struct_size);
  FIELD(attnmux_run_context, num_threads);
  FIELD(attnmux_run_context, stream);
  FIELD(attnmux_run_context, workspace);
  FIELD(attnmux_run_context, workspace_bytes);
  FIELD(attnmux_run_context, parallel_for);
  FIELD(attnmux_run_context, pool);
  FIELD(attnmux_run_context, prepared);
}

static void print_reason(void) {
  STRUCT(attnmux_reason);
  FIELD(attnmux_reason, text);
}

static void print_kernel(void) {
  STRUCT(attnmux_kernel);
  FIELD(attnmux_kernel, struct_size);
  FIELD(attnmux_kernel, device_type);
  FIELD(attnmux_kernel, name);
  FIELD(attnmux_kernel, features);
  FIELD(attnmux_kernel, dtypes);
  FIELD(attnmux_kernel, accuracy);
  FIELD(attnmux_kernel, available);
  FIELD(attnmux_kernel, check);
  FIELD(attnmux_kernel, workspace_bytes);
  FIELD(attnmux_kernel, run);
  FIELD(attnmux_kernel, traits);
  FIELD(attnmux_kernel, reserved);
  FIELD(attnmux_kernel, prepare);
  FIELD(attnmux_kernel, release);
}

static void print_prepared(void) {
  STRUCT(attnmux_prepared);
  FIELD(attnmux_prepared, state);
  FIELD(attnmux_prepared, workspace_bytes);
}

static void print_backend_desc(void) {
  STRUCT(attnmux_backend_desc);
  FIELD(attnmux_backend_desc, struct_size);
  FIELD(attnmux_backend_desc, num_kernels);
  FIELD(attnmux_backend_desc, name);
  FIELD(attnmux_backend_desc, promise);
  FIELD(attnmux_backend_desc, kernels);
}

static void print_host(void) {
  STRUCT(attnmux_host);
  FIELD(attnmux_host, struct_size);
  FIELD(attnmux_host, abi_version);
  FIELD(attnmux_host, register_backend);
}

static void print_scope(void) {
  STRUCT(attnmux_scope);
  FIELD(attnmux_scope, slot);
  FIELD(attnmux_scope, generation);
}

static void print_context(void) {
  STRUCT(attnmux_context);
  FIELD(attnmux_context, struct_size);
  FIELD(attnmux_context, count);
  FIELD(attnmux_context, entries);
}

int main(void) {
  print_tensor();
  print_options();
  print_exec();
  print_error();
  print_problem();
  print_run_context();
  print_reason();
  print_kernel();
  print_prepared();
  print_backend_desc();
  print_host();
  print_scope();
  print_context();
  return 0;
}
