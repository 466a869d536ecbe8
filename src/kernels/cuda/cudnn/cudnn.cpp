// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/cudnn.h"

#include <cuda_runtime_api.h>

#include <cfloat>
#include <cstring>
#include <utility>

#include "kernels/cuda/cudnn/graphs.h"
#include "kernels/cuda/cudnn/handles.h"
#include "kernels/cuda/cudnn/inputs.h"
#include "kernels/cuda/cudnn/library.h"
#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/device.h"

namespace attnmux {
namespace {

constexpr int32_t kCapability = 80;
constexpr int64_t kMaxHeadDim = 256, kVector = 8, kAlignment = 16;
constexpr const char* kOthers = "\"_native_flash\" takes any";

int32_t available(Reason* reason) {
  if (cuda_available(kCapability, reason) == 0) return 0;
  const CudnnLibrary& library = cudnn_library();
  if (library.reason[0] == 0) return 1;
  refuse(reason, "%s", library.reason);
  return 0;
}

int32_t check_extents(const Problem& p, Reason* reason) {
  for (const auto& [name, dim] : {std::pair("head_dim", p.head_dim), std::pair("head_dim of v", p.head_dim_v)}) {
    if (dim % kVector != 0 || dim > kMaxHeadDim) {
      refuse(reason, "%s is %lld; it takes multiples of 8 up to %lld (\"native\" and \"_native_efficient\" take any)",
             name, static_cast<long long>(dim), static_cast<long long>(kMaxHeadDim));
      return 0;
    }
  }
  for (const auto& [name, extent] :
       {std::pair("batch", p.batch), std::pair("seqlen_q", p.seqlen_q), std::pair("seqlen_kv", p.seqlen_kv)}) {
    if (extent >= int64_t{1} << 30) {
      refuse(reason, "%s is %lld; it takes less than 2^30", name, static_cast<long long>(extent));
      return 0;
    }
  }
  return 1;
}

// cuDNN copies 16 bytes at a time, and does not look whether it may.
int32_t check_tensor(const char* name, const Tensor& t, Reason* reason) {
  if (reinterpret_cast<uintptr_t>(t.data) % kAlignment != 0) {
    refuse(reason, "%s.data is %p, which is not a multiple of 16 bytes; %s", name, t.data, kOthers);
    return 0;
  }
  for (int i = 0; i < 3; ++i) {
    if (t.shape[i] > 1 && (t.strides[i] <= 0 || t.strides[i] % kVector != 0)) {
      refuse(reason, "stride %d of %s is %lld elements; it takes positive multiples of 8 (%s)", i, name,
             static_cast<long long>(t.strides[i]), kOthers);
      return 0;
    }
  }
  return 1;
}

// Its kernels take the largest product for the largest score.
int32_t check_scale(const Problem& p, Reason* reason) {
  const auto scale = static_cast<float>(p.scale);
  if (scale >= FLT_MIN && scale <= FLT_MAX) return 1;
  refuse(reason, "scale is %g; it takes positive ones that fp32 can hold (%s)", p.scale, kOthers);
  return 0;
}

// For one query cuDNN shares the keys out among blocks and adds up their parts in the order in which they finish. It
// does not declare that, so it cannot be asked for another kernel.
int32_t check_queries(const Problem& p, Reason* reason) {
  if (p.seqlen_q != 1) return 1;
  refuse(reason, "there is one query, for which cuDNN gives other bits from run to run (\"_native_flash\" the same)");
  return 0;
}

// What cuDNN said when the same shape was tried before.
int32_t check_refusals(const Problem& p, Reason* reason) {
  if (!any_cudnn_refusal()) return 1;
  CachedGraph* known = find_cached_graph(cudnn_shape(attended_part(p)));
  const bool refused = known != nullptr && known->graph == nullptr;
  if (refused && reason != nullptr) {
    constexpr const char* kPrefix = "[attention] kernel cuda_cudnn: ";
    const char* text = known->refusal.message;
    refuse(reason, "%s", std::strncmp(text, kPrefix, std::strlen(kPrefix)) == 0 ? text + std::strlen(kPrefix) : text);
  }
  release_cached_graph(known);
  return refused ? 0 : 1;
}

int32_t check(const Problem* p, Reason* reason) {
  if (cuda_device_is(*p, kCapability, reason) == 0 || check_extents(*p, reason) == 0) return 0;
  for (const auto& [name, t] :
       {std::pair("q", &p->q), std::pair("k", &p->k), std::pair("v", &p->v), std::pair("out", &p->out)}) {
    if (check_tensor(name, *t, reason) == 0) return 0;
  }
  if (check_scale(*p, reason) == 0 || check_queries(*p, reason) == 0) return 0;
  return check_refusals(*p, reason);
}

attnmux_code prepare(const Problem* given_problem, attnmux_prepared* prepared, attnmux_error* error) {
  const Problem p = attended_part(*given_problem);
  if (p.seqlen_kv == 0) return ATTNMUX_OK;  // nothing for cuDNN to do
  CachedGraph* found = nullptr;
  if (const attnmux_code code = find_or_build_graph(cudnn_shape(p), found, error); code != ATTNMUX_OK) return code;
  if (found->graph == nullptr) {
    if (error != nullptr) *error = found->refusal;
    release_cached_graph(found);
    return ATTNMUX_UNSUPPORTED;
  }
  prepared->state = found;
  const size_t bytes = found->workspace.bytes;
  prepared->workspace_bytes = bytes == 0 ? 0 : bytes + kCudnnAlignment;
  return ATTNMUX_OK;
}

void release(void* state) { release_cached_graph(static_cast<CachedGraph*>(state)); }

attnmux_code keep_if_captured(CachedGraph& cached, void* stream, attnmux_error* error) {
  if (cached.captured.load(std::memory_order_relaxed)) return ATTNMUX_OK;
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  ATTNMUX_CUDA_TRY(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &capturing), "asking about the stream");
  if (capturing == cudaStreamCaptureStatusActive) keep_for_ever(&cached);
  return ATTNMUX_OK;
}

attnmux_code run(const Problem* given_problem, const RunContext* context, attnmux_error* error) {
  const Problem p = attended_part(*given_problem);
  if (p.seqlen_kv == 0) return write_empty_rows(p, context->stream, error);
  auto& cached = *static_cast<CachedGraph*>(context->prepared);
  const CudnnShape& s = cached.shape;
  const CudnnWorkspace& w = cached.workspace;
  const auto base = reinterpret_cast<uintptr_t>(context->workspace);
  const auto at = [begin = (base + kCudnnAlignment - 1) / kCudnnAlignment * kCudnnAlignment](size_t offset) {
    return reinterpret_cast<void*>(begin + offset);
  };
  const CudnnGraph::Pointers pointers{p.q.data,
                                      s.copies_k != 0 ? at(w.k) : p.k.data,
                                      s.copies_v != 0 ? at(w.v) : p.v.data,
                                      p.out.data,
                                      p.lse.data,
                                      at(w.lengths_q),
                                      at(w.lengths_kv),
                                      at(w.padding),
                                      static_cast<float>(p.scale)};
  CudnnHandle handle;
  attnmux_code code = keep_if_captured(cached, context->stream, error);
  if (code == ATTNMUX_OK) code = handle.take(p.device_id, error);
  if (code == ATTNMUX_OK) code = handle.set_stream(context->stream, error);
  if (code == ATTNMUX_OK) code = write_cudnn_inputs(p, s, pointers, context->stream, error);
  if (code == ATTNMUX_OK) code = cached.graph->run(handle.get(), pointers, w.bytes == 0 ? nullptr : at(0), error);
  if (code == ATTNMUX_OK && may_have_empty_rows(p)) code = write_empty_rows(p, context->stream, error);
  return code;
}

}  // namespace

const Kernel kCudaCudnn = {
    .struct_size = sizeof(Kernel),
    .device_type = ATTNMUX_CUDA,
    .name = "cuda_cudnn",
    // No dense mask and no bias: cuDNN adds -inf to a score, which does not hide a NaN in k, as the contract wants it
    // to.
    .features = ATTNMUX_MASK_CAUSAL | ATTNMUX_MASK_WINDOW | ATTNMUX_MASK_KEY_LENGTHS | ATTNMUX_MASK_KEY_PADDING |
                ATTNMUX_SCALE | ATTNMUX_LSE | ATTNMUX_GQA | ATTNMUX_HEAD_DIM_V,
    .dtypes = 1u << ATTNMUX_FP16 | 1u << ATTNMUX_BF16,
    .accuracy = {0, 0, ATTNMUX_16BIT, ATTNMUX_16BIT, 0, 0, 0, 0, 0},
    .available = available,
    .check = check,
    .workspace_bytes = nullptr,
    .run = run,
    .traits = ATTNMUX_KERNEL_ONE_SHAPE,
    .reserved = 0,
    .prepare = prepare,
    .release = release,
};

}  // namespace attnmux
