// SPDX-License-Identifier: Apache-2.0
// Fills the planes of K and V: one warp per row of both.
#include "kernels/cuda/efficient/efficient.h"
#include "kernels/cuda/efficient/efficient_split.cuh"

namespace attnmux {
namespace {

constexpr int kSplitThreads = 256;

// Row `index` of a plane from `dim` elements at `from`.
template <typename T>
__device__ inline void split_row(const EfficientPlane& plane, int64_t index, const T* from, int dim, int lane) {
  const int columns = static_cast<int>(plane.columns);
  float largest = 0;
  for (int column = lane; column < dim; column += 32) largest = fmaxf(largest, fabsf(to_float(from[column])));
#pragma unroll
  for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, step));
  const float unit = unit_of(largest), reciprocal = reciprocal_of_unit(unit);
  constexpr bool kWide = sizeof(T) == 4;
  const int64_t pitch = plane.columns * (kWide ? 2 : 1) + kEfficientUnitHalves;
  auto* big = static_cast<uint32_t*>(plane.rows) + index * (pitch / 2);
  for (int pair = lane; pair < columns / 2; pair += 32) {
    const int column = 2 * pair;
    const float left = column < dim ? to_float(from[column]) : 0;
    const float right = column + 1 < dim ? to_float(from[column + 1]) : 0;
    const HalfPairs pairs = split_pair(left * reciprocal, right * reciprocal);
    big[pair] = pairs.big;
    if (kWide) big[columns / 2 + pair] = pairs.small;
  }
  if (lane == 0) big[(pitch - kEfficientUnitHalves) / 2] = __float_as_uint(unit);
}

template <typename T>
__global__ void __launch_bounds__(kSplitThreads) efficient_split(const __grid_constant__ EfficientCall call) {
  const Problem& p = call.base.p;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t index = int64_t{blockIdx.x} * (kSplitThreads / 32) + threadIdx.x / 32;
  if (index >= call.batches * p.num_heads_kv * call.rows) return;
  const int64_t row = index % call.rows, head = index / call.rows % p.num_heads_kv,
                b = index / call.rows / p.num_heads_kv;
  const T* k = element<const T>(p.k, b * p.k.strides[0] + row * p.k.strides[1] + head * p.k.strides[2]);
  const T* v = element<const T>(p.v, b * p.v.strides[0] + row * p.v.strides[1] + head * p.v.strides[2]);
  split_row(call.k, index, k, static_cast<int>(p.head_dim), lane);
  split_row(call.v, index, v, static_cast<int>(p.head_dim_v), lane);
}

template <typename T>
cudaError_t launch_split(const EfficientCall& call, cudaStream_t stream) {
  const int64_t rows = call.batches * call.base.p.num_heads_kv * call.rows;
  const int64_t blocks = ceil_div(rows, kSplitThreads / 32);
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  efficient_split<T><<<static_cast<unsigned>(blocks), kSplitThreads, 0, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace

int launch_efficient_split(const EfficientCall& call, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  switch (call.base.p.dtype) {
    case ATTNMUX_FP32:
      return launch_split<float>(call, queue);
    case ATTNMUX_FP16:
      return launch_split<__half>(call, queue);
    default:
      return launch_split<__nv_bfloat16>(call, queue);
  }
}

}  // namespace attnmux
