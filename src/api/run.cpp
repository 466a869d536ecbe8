// SPDX-License-Identifier: Apache-2.0
#include "api/run.h"

#include <cstddef>
#include <cstring>
#include <vector>

#include "dispatch/environment.h"
#include "dispatch/message.h"
#include "dispatch/problem_masks.h"
#include "kernels/cpu/runtime/arena.h"
#include "kernels/cpu/runtime/thread_pool.h"
#include "kernels/cuda/runtime/call.h"

namespace attnmux {
namespace {

// attnmux_exec of the first version, which programs built with it still pass.
constexpr size_t kFirstExecBytes = offsetof(attnmux_exec, stream_allocate);

bool has_no_row(const Problem& p) { return p.batch == 0 || p.num_heads_q == 0 || p.q.shape[1] == 0; }

// ATTNMUX_CHECK=sync: what is always checked of lengths in host memory, for lengths in device memory.
attnmux_code check_device_lengths(const Problem& p, void* stream, attnmux_error* error) {
  Problem on_host = p;
  std::vector<int32_t> values[3];
  Tensor* tensors[] = {&on_host.key_lengths, &on_host.cu_seqlens_q, &on_host.cu_seqlens_kv};
  for (int i = 0; i < 3; ++i) {
    if (!given(*tensors[i])) continue;
    ATTNMUX_TRY(read_lengths(*tensors[i], stream, values[i], error));
    tensors[i]->data = values[i].data();
    tensors[i]->device_type = ATTNMUX_CPU;
    tensors[i]->strides[0] = 1;
  }
  return check_length_values(on_host, error);
}

}  // namespace

attnmux_code read_exec(const attnmux_exec* given_exec, const Problem& p, attnmux_exec& exec, attnmux_error* error) {
  exec = attnmux_exec{};
  exec.struct_size = sizeof(exec);
  if (given_exec != nullptr) {
    const uint32_t size = given_exec->struct_size;
    ATTNMUX_TRY(check_struct("exec", given_exec, size, sizeof(exec), error, kFirstExecBytes));
    std::memcpy(&exec, given_exec, size < sizeof(exec) ? size : sizeof(exec));
  }
  const auto wrong = [&](const Message& what) { return fail(error, ATTNMUX_INVALID_ARGUMENT, what); };
  if ((exec.set & ~ATTNMUX_EXEC_WORKSPACE) != 0)
    return wrong(ATTNMUX_MESSAGE("exec.set has a bit that this version does not know"));
  if ((exec.set & ATTNMUX_EXEC_WORKSPACE) == 0 && (exec.workspace != nullptr || exec.workspace_bytes != 0)) {
    return wrong(ATTNMUX_MESSAGE("exec.workspace is given (" << exec.workspace_bytes
                                                             << " bytes) but ATTNMUX_EXEC_WORKSPACE is not set"));
  }
  if (exec.workspace == nullptr && exec.workspace_bytes != 0) {
    return wrong(ATTNMUX_MESSAGE("exec.workspace is null with " << exec.workspace_bytes << " bytes"));
  }
  if (exec.num_threads < 0 || (exec.parallel_for != nullptr && exec.num_threads == 0)) {
    return wrong(ATTNMUX_MESSAGE("exec.num_threads is "
                                 << exec.num_threads << "; accepted is "
                                 << (exec.parallel_for != nullptr ? "1 or more, the threads of the caller's executor"
                                                                  : "0 (no cap) or more")));
  }
  if (exec.parallel_for == nullptr && exec.pool != nullptr)
    return wrong(ATTNMUX_MESSAGE("exec.pool is given without exec.parallel_for"));
  if ((exec.stream_allocate == nullptr) != (exec.stream_deallocate == nullptr)) {
    return wrong(ATTNMUX_MESSAGE("exec.stream_" << (exec.stream_allocate == nullptr ? "" : "de")
                                                << "allocate is null, and its counterpart is not; both are needed"));
  }
  if (exec.stream_allocate == nullptr && exec.stream_user != nullptr)
    return wrong(ATTNMUX_MESSAGE("exec.stream_user is given without exec.stream_allocate"));
  if (p.device_type == ATTNMUX_CPU && exec.stream_allocate != nullptr)
    return wrong(ATTNMUX_MESSAGE("exec.stream_allocate is given, but the tensors are on the cpu"));
  if (p.device_type == ATTNMUX_CPU && exec.stream != nullptr)
    return wrong(ATTNMUX_MESSAGE("exec.stream is given, but the tensors are on the cpu"));
  if (p.device_type == ATTNMUX_CUDA && exec.stream == nullptr) {
    return wrong(ATTNMUX_MESSAGE("exec.stream is absent; CUDA tensors need one (stream 0 is ATTNMUX_STREAM_LEGACY)"));
  }
  return ATTNMUX_OK;
}

int32_t threads_of(const attnmux_exec& exec) {
  if (exec.parallel_for != nullptr) return exec.num_threads;
  const int32_t pool = num_pool_threads();
  return exec.num_threads > 0 && exec.num_threads < pool ? exec.num_threads : pool;
}

attnmux_code Prepared::make(const Kernel& kernel, const Problem& p, attnmux_error* error) {
  if (kernel.prepare == nullptr || has_no_row(p)) return ATTNMUX_OK;
  ATTNMUX_TRY(kernel.prepare(&p, &c_, error));
  kernel_ = &kernel;
  return ATTNMUX_OK;
}

size_t workspace_needed(const Kernel& kernel, const Prepared& prepared, const Problem& p, int32_t num_threads) {
  size_t bytes = prepared.c().workspace_bytes;
  if (kernel.prepare == nullptr && kernel.workspace_bytes != nullptr) bytes = kernel.workspace_bytes(&p, num_threads);
  return bytes == 0 ? 0 : bytes + kWorkspaceAlignment - 1;
}

attnmux_code run_kernel(const Kernel& kernel, const Prepared& prepared, const Problem& p, const attnmux_exec& exec,
                        int32_t num_threads, attnmux_error* error) {
  if (has_no_row(p)) return ATTNMUX_OK;
  const size_t needed = workspace_needed(kernel, prepared, p, num_threads);
  void* workspace = exec.workspace;
  const bool own = (exec.set & ATTNMUX_EXEC_WORKSPACE) == 0;
  if (!own && exec.workspace_bytes < needed) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("workspace has " << exec.workspace_bytes << " bytes; kernel " << kernel.name
                                                 << " needs " << needed << " for this problem with " << num_threads
                                                 << " threads (plan.workspace_bytes())"));
  }
  const bool cuda = p.device_type == ATTNMUX_CUDA;
  CudaDeviceScope device;
  CudaBlock block;
  if (cuda) {
    ATTNMUX_TRY(device.enter(p.device_id, error));
    ATTNMUX_TRY(check_cuda_pointers(p, error));
    if (environment().check_sync) ATTNMUX_TRY(check_device_lengths(p, exec.stream, error));
    if (own && needed != 0) ATTNMUX_TRY(block.allocate(needed, p.device_id, exec, error));
  }
  const ArenaBlock arena(own && !cuda ? needed : 0);
  if (own) {
    workspace = cuda ? block.data() : arena.data();
    if (needed != 0 && workspace == nullptr) {
      return fail(error, ATTNMUX_OUT_OF_MEMORY,
                  ATTNMUX_MESSAGE("kernel " << kernel.name << " needs a workspace of " << needed
                                            << " bytes, which could not be allocated"));
    }
  }
  const uintptr_t aligned =
      (reinterpret_cast<uintptr_t>(workspace) + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
  RunContext context{};
  context.struct_size = sizeof(context);
  context.num_threads = num_threads;
  context.stream = exec.stream;
  context.workspace = needed == 0 ? nullptr : reinterpret_cast<void*>(aligned);
  context.workspace_bytes = needed == 0 ? 0 : needed - (kWorkspaceAlignment - 1);
  context.parallel_for = exec.parallel_for != nullptr ? exec.parallel_for : pool_parallel_for;
  context.pool = exec.pool;
  context.prepared = prepared.c().state;
  const attnmux_code code = kernel.run(&p, &context, error);
  if (code != ATTNMUX_OK && error != nullptr && error->code != code) {
    return fail(error, code, ATTNMUX_MESSAGE("kernel " << kernel.name << " failed with code " << code));
  }
  return code;
}

}  // namespace attnmux
