// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm80.h"

#include <cmath>
#include <utility>

#include "kernels/cuda/flash/sm80_split.h"
#include "kernels/cuda/flash/sm80_tuning.h"
#include "kernels/cuda/flash/sm80_wide.h"
#include "kernels/cuda/runtime/alignment.h"
#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/device.h"

namespace attnmux {
namespace {

constexpr int32_t kCapability = 80;
constexpr int64_t kMaxHeadDim = kWideTo;

int32_t available(Reason* reason) { return cuda_available(kCapability, reason); }

int32_t check(const Problem* p, Reason* reason) {
  for (const auto& [name, dim] : {std::pair("head_dim", p->head_dim), std::pair("head_dim of v", p->head_dim_v)}) {
    if (dim % 8 != 0 || dim > kMaxHeadDim) {
      refuse(reason, "%s is %lld; it takes multiples of 8 up to %lld (\"native\" and \"_native_efficient\" take any)",
             name, static_cast<long long>(dim), static_cast<long long>(kMaxHeadDim));
      return 0;
    }
  }
  if (max_of(p->seqlen_q, p->seqlen_kv) >= kFlashMaxLength) {
    refuse(reason, "there are %lld queries and %lld keys; it takes fewer than 2^30 of each",
           static_cast<long long>(p->seqlen_q), static_cast<long long>(p->seqlen_kv));
    return 0;
  }
  return cuda_device_is(*p, kCapability, reason);
}

// Can the rows of a mask or bias be copied 16 bytes at a time?
bool copied_in_pieces(const Tensor& t, int64_t element_bytes) {
  return !given(t) || ((t.shape[3] <= 1 || t.strides[3] == 1) && rows_aligned(t, element_bytes, 16));
}

int64_t split_slots_of(const Problem& p) {
  const CudaDevice& device = cuda_machine().device[p.device_id];
  return split_slots(max_of(p.head_dim, p.head_dim_v), device.multiprocessors, device.shared_bytes);
}

bool is_wide(const Problem& p) { return max_of(p.head_dim, p.head_dim_v) > kWideFrom; }

size_t workspace_bytes(const Problem* p, int32_t /*num_threads*/) {
  if (is_wide(*p)) return 0;  // never cut
  return split_workspace_bytes(*p, split_slots_of(*p));
}

// The instance for everything has no registers left for 256 columns.
bool can_split(const Problem& p, bool positions_only) {
  return positions_only || max_of(p.head_dim, p.head_dim_v) <= 128;
}

attnmux_code run(const Problem* p, const RunContext* context, attnmux_error* error) {
  if (p->seqlen_q == 0) return ATTNMUX_OK;
  constexpr double kLog2E = 1.4426950408889634;
  FlashSm80Call call{};
  call.p = *p;
  call.scale_log2 = static_cast<float>(p->scale * kLog2E);
  call.threshold = p->dropout_p > 0 ? dropout_threshold(p->dropout_p) : 0;
  call.kept = static_cast<float>(1 / (1 - p->dropout_p));
  constexpr int32_t kStaticBytes = 1024;  // what the kernels have beside it, and its alignment
  call.shared_limit = cuda_machine().device[p->device_id].shared_bytes - kStaticBytes;
  call.aligned_in = rows_aligned(p->q, 2, 16) && rows_aligned(p->k, 2, 16) && rows_aligned(p->v, 2, 16);
  call.aligned_out = rows_aligned(p->out, 2, 16) ? 16 : rows_aligned(p->out, 2, 4) ? 4 : 0;
  const bool ordinary_scale = call.scale_log2 > 0 && std::isfinite(call.scale_log2);
  call.lazy = flash_is_lazy(max_of(p->head_dim, p->head_dim_v)) ? 1 : 0;
  call.natural = (p->features & (ATTNMUX_BIAS | ATTNMUX_SOFTCAP)) != 0 || !ordinary_scale ? 1 : 0;
  FlashFeatures features = FlashFeatures::kAll;
  if ((p->features & (ATTNMUX_SOFTCAP | ATTNMUX_DROPOUT)) == 0 && call.aligned_in && call.aligned_out &&
      ordinary_scale) {
    if ((p->features & (ATTNMUX_MASK_KEY_PADDING | ATTNMUX_MASK_DENSE | ATTNMUX_BIAS)) == 0) {
      features = FlashFeatures::kPositions;
    } else if (!given(p->bias) && (!given(p->dense_mask) || p->dense_mask.strides[2] == 0)) {
      features = FlashFeatures::kKeys;
    } else if (copied_in_pieces(p->dense_mask, 1) && copied_in_pieces(p->bias, p->bias.dtype == ATTNMUX_FP32 ? 4 : 2)) {
      features = FlashFeatures::kMasks;
    }
  }
  const bool positions_only = features == FlashFeatures::kPositions;
  if (is_wide(*p)) {
    const auto launch = p->dtype == ATTNMUX_BF16 ? launch_flash_wide_bf16 : launch_flash_wide_fp16;
    const auto code = static_cast<cudaError_t>(launch(call, positions_only, context->stream));
    ATTNMUX_CUDA_TRY(code, "launching cuda_flash_sm80");
    return ATTNMUX_OK;
  }
  const int64_t slots = split_slots_of(*p);
  const FlashSplit split = can_split(*p, positions_only)
                               ? flash_split(*p, cuda_machine().device[p->device_id].multiprocessors, slots)
                               : FlashSplit{};
  if (split.pieces > 0) {
    FlashSplitCall cut{.base = call, .tiles = split.tiles, .pieces = split.pieces, .state = nullptr, .out = nullptr};
    if (split.pieces > 1) {
      // Outputs first: they are read and written 16 bytes at a time.
      cut.out = static_cast<float*>(context->workspace);
      cut.state = reinterpret_cast<PartialState*>(cut.out + slots * kSplitRows * p->head_dim_v);
    }
    const auto launch = p->dtype == ATTNMUX_BF16 ? launch_flash_split_bf16 : launch_flash_split_fp16;
    const auto code = static_cast<cudaError_t>(launch(cut, positions_only, context->stream));
    ATTNMUX_CUDA_TRY(code, "launching cuda_flash_sm80");
    return ATTNMUX_OK;
  }
  const int64_t blocks = ceil_div(p->seqlen_q, 128) * p->num_heads_q * p->batch;
  if (positions_only && flash_takes_small_blocks(max_of(p->head_dim, p->head_dim_v), blocks,
                                                 cuda_machine().device[p->device_id].multiprocessors)) {
    features = FlashFeatures::kSmallBlocks;
  }
  const auto launch = p->dtype == ATTNMUX_BF16 ? launch_flash_sm80_bf16 : launch_flash_sm80_fp16;
  const auto code = static_cast<cudaError_t>(launch(call, features, context->stream));
  ATTNMUX_CUDA_TRY(code, "launching cuda_flash_sm80");
  return ATTNMUX_OK;
}

}  // namespace

const Kernel kCudaFlashSm80 = {
    .struct_size = sizeof(Kernel),
    .device_type = ATTNMUX_CUDA,
    .name = "cuda_flash_sm80",
    .features = ((uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1) & ~ATTNMUX_DESCALE,
    .dtypes = 1u << ATTNMUX_FP16 | 1u << ATTNMUX_BF16,
    .accuracy = {0, 0, ATTNMUX_16BIT, ATTNMUX_16BIT, 0, 0, 0, 0, 0},
    .available = available,
    .check = check,
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace attnmux
