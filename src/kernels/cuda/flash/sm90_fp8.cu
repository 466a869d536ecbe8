// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm90_fp8_forward.cuh"
#include "kernels/cuda/flash/sm90_fp8_values.cuh"
#include "kernels/cuda/flash/sm90_launch.cuh"

namespace attnmux {
namespace {

// The kernel waits itself for the copy of V, right before it reads that.
template <int kIndex, FlashSm90Features kFeatures>
cudaError_t launch_fp8_kernel(const FlashSm90Call& call, cudaStream_t stream) {
  using L = FlashSm90Layout<kFlashSm90Fp8Tiles[kIndex]>;
  int64_t blocks = call.multiprocessors;
  if (call.shares.share == 0) blocks = min_of(int64_t{call.items} * call.q_tiles, blocks);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  const cudaLaunchConfig_t config{static_cast<unsigned>(blocks), L::kThreads, L::kBytes, stream, &early,
                                  call.p.seqlen_kv > 0 ? 1u : 0u};
  constinit static std::atomic<uint32_t> allowed{0};
  return launch_allowed(flash_sm90_fp8<kIndex, kFeatures>, allowed, config, call);
}

// The copy of V as a tensor whose rows are columns.
Tensor copy_of_values(const Problem& p, void* values) {
  const int64_t keys = flash_sm90_value_keys(p), batch = given(p.cu_seqlens_kv) ? 1 : p.batch;
  Tensor t = p.v;
  t.data = values;
  const int64_t shape[4] = {batch, p.head_dim_v, p.num_heads_kv, keys};
  const int64_t strides[4] = {p.num_heads_kv * p.head_dim_v * keys, keys, p.head_dim_v * keys, 1};
  for (int i = 0; i < 4; ++i) {
    t.shape[i] = shape[i];
    t.strides[i] = strides[i];
  }
  return t;
}

template <int kIndex>
attnmux_code launch_fp8_tile(FlashSm90Call& call, void* values, cudaStream_t stream, attnmux_error* error) {
  constexpr FlashSm90Tile kTile = kFlashSm90Fp8Tiles[kIndex];
  using L = FlashSm90Layout<kTile>;
  const Problem& p = call.p;
  call.pack = 1;
  call.tile_rows = L::kM;
  call.q_tiles = static_cast<int32_t>(ceil_div(p.seqlen_q, L::kM));
  call.items = static_cast<int32_t>(p.num_heads_q * p.batch);
  call.section = heads_of_a_section(p, call.l2_bytes);
  const bool plain = call.features == FlashSm90Features::kPlain;
  call.shares = share_out(int64_t{call.items} * call.q_tiles, call.multiprocessors, ceil_div(p.seqlen_kv, L::kN),
                          plain && call.partials != nullptr);
  if (p.seqlen_kv > 0) {
    const struct {
      Tensor tensor;
      uint32_t rows, row_bytes;
      TensorMap& map;
    } maps[] = {{p.q, L::kM, 128, call.q_map},
                {p.k, L::kN, 128, call.k_map},
                {copy_of_values(p, values), static_cast<uint32_t>(kTile.dim_v), L::kN, call.v_map}};
    for (const auto& [tensor, rows, row_bytes, map] : maps) {
      const attnmux_code code = encode_tensor_map(tensor, rows, map, error, row_bytes);
      if (code != ATTNMUX_OK) return code;
    }
    const dim3 grid(static_cast<unsigned>(ceil_div(p.seqlen_kv, kFlashSm90ValueBlock)),
                    static_cast<unsigned>(p.num_heads_kv), static_cast<unsigned>(p.batch));
    transpose_values<kTile.dim_v>
        <<<grid, kValueThreads, 0, stream>>>(call, static_cast<uint8_t*>(values), flash_sm90_value_keys(p));
    ATTNMUX_CUDA_TRY(cudaGetLastError(), "transposing v");
  }
  ATTNMUX_CUDA_TRY((plain ? launch_fp8_kernel<kIndex, FlashSm90Features::kPlain>(call, stream)
                          : launch_fp8_kernel<kIndex, FlashSm90Features::kPositions>(call, stream)),
                   "launching cuda_flash_sm90");
  return ATTNMUX_OK;
}

}  // namespace

attnmux_code launch_flash_sm90_fp8(FlashSm90Call& call, void* values, void* stream, attnmux_error* error) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (flash_sm90_fp8_index(call.p.head_dim, call.p.head_dim_v)) {
    case 0:
      return launch_fp8_tile<0>(call, values, on, error);
    case 1:
      return launch_fp8_tile<1>(call, values, on, error);
    default:
      return launch_fp8_tile<2>(call, values, on, error);
  }
}

}  // namespace attnmux
