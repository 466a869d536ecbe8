// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/efficient/efficient.h"

#include <utility>

#include "kernels/cuda/runtime/alignment.h"
#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/device.h"

namespace attnmux {
namespace {

constexpr int32_t kCapability = 80;
constexpr int64_t kStaticBytes = 1024;  // of shared memory: what a block has beside its tiles, and their alignment

int32_t available(Reason* reason) { return cuda_available(kCapability, reason); }

int32_t check(const Problem* p, Reason* reason) {
  for (const auto& [name, dim] : {std::pair("head_dim", p->head_dim), std::pair("head_dim of v", p->head_dim_v)}) {
    if (dim > kEfficientMaxDim) {
      refuse(reason, "%s is %lld; it takes up to %lld (\"native\" and \"_native_efficient\" have cuda_math for more)",
             name, static_cast<long long>(dim), static_cast<long long>(kEfficientMaxDim));
      return 0;
    }
  }
  if (max_of(p->seqlen_q, p->seqlen_kv) >= kFlashMaxLength) {
    refuse(reason, "there are %lld queries and %lld keys; it takes fewer than 2^30 of each",
           static_cast<long long>(p->seqlen_q), static_cast<long long>(p->seqlen_kv));
    return 0;
  }
  if (cuda_device_is(*p, kCapability, reason) == 0) return 0;
  const int64_t width = efficient_width(max_of(p->head_dim, p->head_dim_v));
  const int64_t needed =
      efficient_shared_bytes(width, p->dtype == ATTNMUX_FP32, efficient_least_stages(width)) + kStaticBytes;
  const int64_t limit = cuda_machine().device[p->device_id].shared_bytes;
  if (needed > limit) {
    refuse(reason, "a block needs %lld bytes of shared memory for this head_dim; cuda:%d has %lld",
           static_cast<long long>(needed), p->device_id, static_cast<long long>(limit));
    return 0;
  }
  return 1;
}

size_t workspace_bytes(const Problem* p, int32_t /*num_threads*/) {
  EfficientCall call{};
  return efficient_planes(*p, nullptr, call);
}

attnmux_code run(const Problem* p, const RunContext* context, attnmux_error* error) {
  if (p->seqlen_q == 0) return ATTNMUX_OK;
  EfficientCall call{};
  call.base.p = *p;
  call.base.threshold = p->dropout_p > 0 ? dropout_threshold(p->dropout_p) : 0;
  call.base.kept = static_cast<float>(1 / (1 - p->dropout_p));
  constexpr double kLog2E = 1.4426950408889634;
  call.base.scale_log2 = static_cast<float>(p->scale * kLog2E);
  call.base.aligned_out = p->dtype == ATTNMUX_FP32 && rows_aligned(p->out, 4, 8) ? 8 : 0;
  call.base.shared_limit = cuda_machine().device[p->device_id].shared_bytes - static_cast<int32_t>(kStaticBytes);
  efficient_planes(*p, context->workspace, call);
  if (call.rows != 0) {
    const auto code = static_cast<cudaError_t>(launch_efficient_split(call, context->stream));
    ATTNMUX_CUDA_TRY(code, "launching cuda_efficient");
  }
  constexpr uint64_t kHooks =
      ATTNMUX_BIAS | ATTNMUX_SOFTCAP | ATTNMUX_DROPOUT | ATTNMUX_MASK_KEY_PADDING | ATTNMUX_MASK_DENSE;
  // Softmax has the scale, times the unit of a query, as a factor: that product is an ordinary number too.
  const bool ordinary_scale = p->scale >= 0x1p-20 && p->scale <= 0x1p20;
  call.base.natural = (p->features & (ATTNMUX_BIAS | ATTNMUX_SOFTCAP)) != 0 || !ordinary_scale ? 1 : 0;
  const bool general = (p->features & kHooks) != 0 || !ordinary_scale;
  const auto launch = p->dtype == ATTNMUX_FP32   ? launch_efficient_fp32
                      : p->dtype == ATTNMUX_BF16 ? launch_efficient_bf16
                                                 : launch_efficient_fp16;
  const auto code = static_cast<cudaError_t>(launch(call, general, context->stream));
  ATTNMUX_CUDA_TRY(code, "launching cuda_efficient");
  return ATTNMUX_OK;
}

}  // namespace

size_t efficient_planes(const Problem& p, void* workspace, EfficientCall& call) {
  const bool packed = given(p.cu_seqlens_kv), wide = p.dtype == ATTNMUX_FP32;
  call.rows = packed ? p.k.shape[1] : p.seqlen_kv;
  call.batches = packed ? 1 : p.batch;
  const int64_t rows = call.batches * p.num_heads_kv * call.rows;
  size_t used = 0;
  const auto take = [&](int64_t bytes) {
    void* const at = workspace == nullptr ? nullptr : static_cast<unsigned char*>(workspace) + used;
    used += static_cast<size_t>(round_up(bytes, 256));
    return at;
  };
  for (const auto& [plane, dim] : {std::pair(&call.k, p.head_dim), std::pair(&call.v, p.head_dim_v)}) {
    plane->columns = round_up(dim, 16);
    plane->rows = take(rows * (plane->columns * (wide ? 2 : 1) + kEfficientUnitHalves) * 2);
  }
  return used;
}

const Kernel kCudaEfficient = {
    .struct_size = sizeof(Kernel),
    .device_type = ATTNMUX_CUDA,
    .name = "cuda_efficient",
    .features = ((uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1) & ~ATTNMUX_DESCALE,
    .dtypes = 1u << ATTNMUX_FP32 | 1u << ATTNMUX_FP16 | 1u << ATTNMUX_BF16,
    .accuracy = {0, ATTNMUX_EXACT, ATTNMUX_EXACT, ATTNMUX_EXACT, 0, 0, 0, 0, 0},
    .available = available,
    .check = check,
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace attnmux
