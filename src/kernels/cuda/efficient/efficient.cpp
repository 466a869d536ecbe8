// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/efficient/efficient.h"

#include <utility>

#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/device.h"

namespace attnmux {
namespace {

constexpr int32_t kCapability = 80;
constexpr int64_t kMaxHeadDim = 256;

int32_t available(Reason* reason) { return cuda_available(kCapability, reason); }

int32_t check(const Problem* p, Reason* reason) {
  for (const auto& [name, dim] : {std::pair("head_dim", p->head_dim), std::pair("head_dim of v", p->head_dim_v)}) {
    if (dim > kMaxHeadDim) {
      refuse(reason, "%s is %lld; it takes up to %lld (\"native\" and \"_native_efficient\" have cuda_math for more)",
             name, static_cast<long long>(dim), static_cast<long long>(kMaxHeadDim));
      return 0;
    }
  }
  if (max_of(p->seqlen_q, p->seqlen_kv) >= kFlashMaxLength) {
    refuse(reason, "there are %lld queries and %lld keys; it takes fewer than 2^30 of each",
           static_cast<long long>(p->seqlen_q), static_cast<long long>(p->seqlen_kv));
    return 0;
  }
  if (cuda_device_is(*p, kCapability, reason) == 0) return 0;
  constexpr int64_t kStaticBytes = 1024;  // what the kernel has beside its dynamic shared memory
  const int64_t needed = efficient_shared_bytes(max_of(p->head_dim, p->head_dim_v)) + kStaticBytes;
  const int64_t limit = cuda_machine().device[p->device_id].shared_bytes;
  if (needed > limit) {
    refuse(reason, "a block needs %lld bytes of shared memory for this head_dim; cuda:%d has %lld",
           static_cast<long long>(needed), p->device_id, static_cast<long long>(limit));
    return 0;
  }
  return 1;
}

// Can fp32 rows be copied 16 bytes at a time?
bool rows_aligned(const Tensor& t) {
  if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0) return false;
  for (int i = 0; i < 3; ++i) {
    if (t.shape[i] > 1 && t.strides[i] % 4 != 0) return false;
  }
  return true;
}

attnmux_code run(const Problem* p, const RunContext* context, attnmux_error* error) {
  if (p->seqlen_q == 0) return ATTNMUX_OK;
  FlashSm80Call call{};
  call.p = *p;
  call.threshold = p->dropout_p > 0 ? dropout_threshold(p->dropout_p) : 0;
  call.kept = static_cast<float>(1 / (1 - p->dropout_p));
  call.natural = 1;  // scores are finished before softmax: one order of roundings, whatever the call asks for
  call.aligned_in = p->dtype == ATTNMUX_FP32 && rows_aligned(p->q) && rows_aligned(p->k) && rows_aligned(p->v);
  const auto launch = p->dtype == ATTNMUX_FP32   ? launch_efficient_fp32
                      : p->dtype == ATTNMUX_BF16 ? launch_efficient_bf16
                                                 : launch_efficient_fp16;
  const auto code = static_cast<cudaError_t>(launch(call, context->stream));
  ATTNMUX_CUDA_TRY(code, "launching cuda_efficient");
  return ATTNMUX_OK;
}

}  // namespace

const Kernel kCudaEfficient = {
    .struct_size = sizeof(Kernel),
    .device_type = ATTNMUX_CUDA,
    .name = "cuda_efficient",
    .features = (uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1,
    .dtypes = 1u << ATTNMUX_FP32 | 1u << ATTNMUX_FP16 | 1u << ATTNMUX_BF16,
    .accuracy = {0, ATTNMUX_EXACT, ATTNMUX_EXACT, ATTNMUX_EXACT, 0, 0, 0, 0, 0},
    .available = available,
    .check = check,
    .workspace_bytes = nullptr,
    .run = run,
};

}  // namespace attnmux
