// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm90.h"

#include <cmath>
#include <utility>

#include "kernels/cuda/flash/joint/sm90.h"
#include "kernels/cuda/flash/sm90_fp8.h"
#include "kernels/cuda/flash/sm90_tiles.h"
#include "kernels/cuda/flash/sm90_wide.h"
#include "kernels/cuda/runtime/alignment.h"
#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/device.h"

namespace attnmux {
namespace {

constexpr double kLog2E = 1.4426950408889634;

// Its instructions exist on this very architecture and not on newer ones.
bool is_hopper(const CudaDevice& device) { return device.major == 9 && device.minor == 0; }

int32_t available(Reason* reason) {
  if (cuda_available(0, reason) == 0) return 0;
  const CudaMachine& machine = cuda_machine();
  for (int32_t id = 0; id < machine.num_devices; ++id) {
    if (is_hopper(machine.device[id])) return 1;
  }
  refuse(reason, "needs a Hopper GPU (compute capability 9.0, sm90a); %s has %d.%d", machine.device[0].name,
         machine.device[0].major, machine.device[0].minor);
  return 0;
}

int32_t check_device(const Problem& p, Reason* reason) {
  if (cuda_device_is(p, 0, reason) == 0) return 0;
  const CudaDevice& device = cuda_machine().device[p.device_id];
  if (is_hopper(device)) return 1;
  refuse(reason, "needs a Hopper GPU (compute capability 9.0, sm90a); cuda:%d, %s, has %d.%d", p.device_id, device.name,
         device.major, device.minor);
  return 0;
}

bool is_fp8(const Problem& p) { return p.dtype == ATTNMUX_E4M3; }
bool is_wide(const Problem& p) { return max_of(p.head_dim, p.head_dim_v) > kFlashSm90WideFrom; }

int32_t check_shape(const Problem& p, Reason* reason) {
  const int64_t most = is_fp8(p) ? kFlashSm90Fp8MaxDim : kFlashSm90WideTo, step = is_fp8(p) ? 16 : 8;
  for (const auto& [name, dim] : {std::pair("head_dim", p.head_dim), std::pair("head_dim of v", p.head_dim_v)}) {
    if (dim % step != 0 || dim > most) {
      refuse(reason, "%s is %lld; %sit takes multiples of %lld up to %lld (%s)", name, static_cast<long long>(dim),
             is_fp8(p) ? "of e4m3 " : "", static_cast<long long>(step), static_cast<long long>(most),
             is_fp8(p) ? "a copy padded with zeros gives the same" : "\"native\" and \"_native_efficient\" take any");
      return 0;
    }
  }
  constexpr int64_t kMostBlocks = 65535;  // in the second and third dimension of a grid
  if (is_fp8(p) && (p.batch > kMostBlocks || p.num_heads_kv > kMostBlocks)) {
    refuse(reason, "there are %lld batch entries and %lld key heads; of e4m3 it takes up to 65535 of each",
           static_cast<long long>(p.batch), static_cast<long long>(p.num_heads_kv));
    return 0;
  }
  if (max_of(p.seqlen_q, p.seqlen_kv) >= kFlashSm90MaxLength) {
    refuse(reason, "there are %lld queries and %lld keys; it takes fewer than 2^30 of each",
           static_cast<long long>(p.seqlen_q), static_cast<long long>(p.seqlen_kv));
    return 0;
  }
  constexpr int64_t kMost = INT32_MAX;
  const int64_t tiles = ceil_div(p.seqlen_q, 64);
  if (p.batch * p.num_heads_q > kMost || (tiles > 0 && p.batch * p.num_heads_q > kMost / tiles)) {
    refuse(reason, "batch entries, heads and blocks of 64 queries are more than 2^31; split the batch");
    return 0;
  }
  return 1;
}

// A scale that softmax can apply to products, whose maximum then is the scores'.
bool ordinary_scale(const Problem& p) {
  const auto scale_log2 = static_cast<float>(p.scale * kLog2E);
  return scale_log2 > 0 && std::isfinite(scale_log2);
}

FlashSm90Features features_of(const Problem& p) {
  constexpr uint64_t kHooks = ATTNMUX_BIAS | ATTNMUX_SOFTCAP;
  constexpr uint64_t kKeys = ATTNMUX_MASK_KEY_PADDING | ATTNMUX_MASK_DENSE | ATTNMUX_VARLEN;
  if ((p.features & kHooks) != 0 || !ordinary_scale(p)) return FlashSm90Features::kAll;
  if ((p.features & kKeys) != 0) return FlashSm90Features::kKeys;
  // One query at the end of the keys has none behind it.
  const bool unmasked =
      p.window_left < 0 && (p.window_right < 0 || (p.seqlen_q == 1 && p.align == ATTNMUX_ALIGN_BOTTOM_RIGHT));
  return unmasked ? FlashSm90Features::kPlain : FlashSm90Features::kPositions;
}

// E4M3 and wide heads have instances for masks by position only.
int32_t check_hooks(const Problem& p, Reason* reason) {
  const char* of = is_fp8(p) ? "e4m3" : "a head_dim above 256";
  const char* instead = is_fp8(p) ? "bf16 tensors may have one" : "\"flash\" takes one";
  const struct {
    uint64_t bit;
    const char* what;
  } hooks[] = {{ATTNMUX_MASK_KEY_PADDING, "a key-padding mask"},
               {ATTNMUX_MASK_DENSE, "a dense mask"},
               {ATTNMUX_BIAS, "an additive bias"},
               {ATTNMUX_SOFTCAP, "a softcap"}};
  for (const auto& hook : hooks) {
    if ((p.features & hook.bit) == 0) continue;
    refuse(reason, "takes %s without %s; %s", of, hook.what, instead);
    return 0;
  }
  if (ordinary_scale(p)) return 1;
  refuse(reason, "scale is %g; with %s it takes finite scales above 0", p.scale, of);
  return 0;
}
bool by_position_only(const Problem& p) { return is_fp8(p) || is_wide(p); }
bool is_streamed(const Problem& p) { return !by_position_only(p) && flash_sm90_is_streamed(features_of(p)); }

int32_t check(const Problem* p, Reason* reason) {
  if (check_device(*p, reason) == 0 || check_shape(*p, reason) == 0) return 0;
  if (by_position_only(*p) && check_hooks(*p, reason) == 0) return 0;
  return tensor_map_takes("q", p->q, reason) != 0 && tensor_map_takes("k", p->k, reason) != 0 &&
                 tensor_map_takes("v", p->v, reason) != 0
             ? 1
             : 0;
}

// Counters, and the pieces of tiles. Each block may leave two pieces, and no more blocks than there are steps have any.
// Under a mask by position steps differ from tile to tile, but for few queries at the end of the keys. The workspace is
// there for any number of queries, since it must not fall with them.
bool may_share_few(const Problem& p, const FlashSm90Tile& tile) {
  const FlashSm90Features features = features_of(p);
  const bool at_the_end =
      features == FlashSm90Features::kPositions && p.window_left < 0 && p.align == ATTNMUX_ALIGN_BOTTOM_RIGHT;
  return (features == FlashSm90Features::kPlain || at_the_end) &&
         ceil_div(p.seqlen_kv, tile.keys) > kFlashSm90ShareCost;
}
bool may_share(const Problem& p, const FlashSm90Tile& tile) {
  return may_share_few(p, tile) && (features_of(p) == FlashSm90Features::kPlain || p.seqlen_q <= tile.keys);
}
FlashSm90Tile tile_of(const Problem& p) {
  if (is_fp8(p)) return kFlashSm90Fp8Tiles[flash_sm90_fp8_index(p.head_dim, p.head_dim_v)];
  if (is_wide(p)) return flash_sm90_wide_tile(flash_sm90_wide_index(p.head_dim, p.head_dim_v), features_of(p));
  return flash_sm90_tile(flash_sm90_tile_index(p.head_dim, p.head_dim_v), features_of(p));
}
// Before the rest of the workspace: what an instance wants beside it.
size_t copy_bytes(const Problem& p) { return is_fp8(p) ? static_cast<size_t>(flash_sm90_value_bytes(p)) : 0; }
size_t own_workspace_bytes(const Problem* p) {
  const FlashSm90Tile tile = tile_of(*p);
  if (!may_share_few(*p, tile))
    return is_streamed(*p) ? flash_sm90_stream_bytes(*p, flash_sm90_step_shape(tile)) : copy_bytes(*p);
  const int64_t most = cuda_machine().device[p->device_id].multiprocessors;
  const int64_t rows = (is_wide(*p) ? kFlashSm90WideRows : 64 * tile.groups) * tile.cluster;
  const int64_t tiles = min_of(p->batch * p->num_heads_q * ceil_div(p->seqlen_q, rows), most) * tile.cluster;
  const int64_t pieces = 2 * min_of(tiles * min_of(ceil_div(p->seqlen_kv, tile.keys), most), most);
  const int64_t floats = is_wide(*p) ? flash_sm90_wide_partial_floats(tile) : flash_sm90_partial_floats(tile);
  return copy_bytes(*p) + kFlashSm90ArrivalBytes + static_cast<size_t>(pieces * floats * 4);
}

// Which of two kernels runs depends on the number of queries, with which the workspace must not fall.
size_t workspace_bytes(const Problem* p, int32_t /*num_threads*/) {
  return static_cast<size_t>(
      max_of(static_cast<int64_t>(own_workspace_bytes(p)), static_cast<int64_t>(joint::workspace_bytes(*p))));
}

attnmux_code run(const Problem* p, const RunContext* context, attnmux_error* error) {
  if (p->seqlen_q == 0 || p->batch == 0 || p->num_heads_q == 0) return ATTNMUX_OK;
  if (joint::takes(*p)) return joint::run(*p, *context, error);
  FlashSm90Call call{};
  call.p = *p;
  call.features = features_of(*p);
  call.scale_log2 = static_cast<float>(call.features == FlashSm90Features::kAll ? kLog2E : p->scale * kLog2E);
  call.multiprocessors = cuda_machine().device[p->device_id].multiprocessors;
  call.l2_bytes = cuda_machine().device[p->device_id].l2_bytes;
  call.aligned_out = rows_aligned(p->out, 2, 16) ? 1 : 0;
  call.bias_boxes = given(p->bias) && bias_map_takes(p->bias) ? 1 : 0;
  if (is_streamed(*p)) {
    const FlashSm90StepShape shape = flash_sm90_step_shape(tile_of(*p));
    place_flash_sm90_stream(*p, shape, context->workspace, call.keys, call.queue);
  }
  if (may_share(*p, tile_of(*p))) {
    char* rest = static_cast<char*>(context->workspace) + copy_bytes(*p);
    call.arrivals = reinterpret_cast<int32_t*>(rest);
    call.partials = reinterpret_cast<float*>(rest + kFlashSm90ArrivalBytes);
  }
  const bool bf16 = p->dtype == ATTNMUX_BF16;
  if (is_fp8(*p)) return launch_flash_sm90_fp8(call, context->workspace, context->stream, error);
  if (is_wide(*p))
    return (bf16 ? launch_flash_sm90_wide_bf16 : launch_flash_sm90_wide_fp16)(call, context->stream, error);
  auto launch = bf16 ? launch_flash_sm90_bf16 : launch_flash_sm90_fp16;
  if (call.features == FlashSm90Features::kKeys)
    launch = bf16 ? launch_flash_sm90_keys_bf16 : launch_flash_sm90_keys_fp16;
  if (call.features == FlashSm90Features::kAll) launch = bf16 ? launch_flash_sm90_all_bf16 : launch_flash_sm90_all_fp16;
  return launch(call, context->stream, error);
}

}  // namespace

int32_t flash_sm90_pack(const Problem& p, const FlashSm90Tile& tile) {
  const int64_t group = p.num_heads_q / p.num_heads_kv, rows = 64 * tile.groups;
  if (group == 1 || group > rows || tile.cluster > 1 || p.q.strides[2] == 0) return 1;
  const int64_t packed = ceil_div(p.seqlen_q * group, flash_sm90_tile_rows(tile, group));
  return packed < ceil_div(p.seqlen_q, rows) * group ? static_cast<int32_t>(group) : 1;
}

const Kernel kCudaFlashSm90 = {
    .struct_size = sizeof(Kernel),
    .device_type = ATTNMUX_CUDA,
    .name = "cuda_flash_sm90",
    .features = ((uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1) & ~ATTNMUX_DROPOUT,
    .dtypes = 1u << ATTNMUX_FP16 | 1u << ATTNMUX_BF16 | 1u << ATTNMUX_E4M3,
    .accuracy = {0, 0, ATTNMUX_16BIT, ATTNMUX_16BIT, 0, 0, 0, 0, ATTNMUX_QUANTIZED},
    .available = available,
    .check = check,
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace attnmux
