// SPDX-License-Identifier: Apache-2.0
// Fills the planes of K and V: eight lanes have a row of both.
#include "kernels/cuda/efficient/efficient.h"
#include "kernels/cuda/efficient/efficient_split.cuh"

namespace attnmux {
namespace {

constexpr int kSplitThreads = 256;
constexpr int kSplitLanes = 8;  // of a row: short enough for a warp to have several rows under way

// The largest absolute value of a row.
template <typename T>
__device__ inline float largest_of(const T* row, int dim, int lane) {
  float largest = 0;
#pragma unroll 8
  for (int column = lane; column < dim; column += kSplitLanes) largest = fmaxf(largest, fabsf(to_float(row[column])));
#pragma unroll
  for (int step = kSplitLanes / 2; step > 0; step /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, step));
  return largest;
}

// Row `index` of a plane from `dim` elements at `from`.
template <typename T>
__device__ inline void split_row(const EfficientPlane& plane, int64_t index, const T* from, int dim, float largest,
                                 int lane) {
  constexpr bool kWide = sizeof(T) == 4;
  const int pairs = static_cast<int>(plane.columns / 2);
  const float unit = unit_of(largest), reciprocal = reciprocal_of_unit(unit);
  const int64_t pitch = plane.columns * (kWide ? 2 : 1) + kEfficientUnitHalves;
  auto* big = static_cast<uint32_t*>(plane.rows) + index * (pitch / 2);
#pragma unroll 4
  for (int pair = lane; pair < pairs; pair += kSplitLanes) {
    const int column = 2 * pair;
    const float left = column < dim ? to_float(from[column]) : 0;
    const float right = column + 1 < dim ? to_float(from[column + 1]) : 0;
    const HalfPairs halves = split_pair(left * reciprocal, right * reciprocal);
    big[pair] = halves.big;
    if (kWide) big[pairs + pair] = halves.small;
  }
  if (lane == 0) big[(pitch - kEfficientUnitHalves) / 2] = __float_as_uint(unit);
}

template <typename T>
__global__ void __launch_bounds__(kSplitThreads) efficient_split(const __grid_constant__ EfficientCall call) {
  const Problem& p = call.base.p;
  const int lane = static_cast<int>(threadIdx.x) % kSplitLanes;
  const int64_t rows = call.batches * p.num_heads_kv * call.rows;
  const int64_t wanted = int64_t{blockIdx.x} * (kSplitThreads / kSplitLanes) + threadIdx.x / kSplitLanes;
  const int64_t index = min_of(wanted, rows - 1);  // lanes of one warp stay together
  const int64_t row = index % call.rows, head = index / call.rows % p.num_heads_kv,
                b = index / call.rows / p.num_heads_kv;
  const T* k = element<const T>(p.k, b * p.k.strides[0] + row * p.k.strides[1] + head * p.k.strides[2]);
  const T* v = element<const T>(p.v, b * p.v.strides[0] + row * p.v.strides[1] + head * p.v.strides[2]);
  const int head_dim = static_cast<int>(p.head_dim), head_dim_v = static_cast<int>(p.head_dim_v);
  const float largest_k = largest_of(k, head_dim, lane), largest_v = largest_of(v, head_dim_v, lane);
  if (wanted >= rows) return;
  split_row(call.k, index, k, head_dim, largest_k, lane);
  split_row(call.v, index, v, head_dim_v, largest_v, lane);
}

template <typename T>
cudaError_t launch_split(const EfficientCall& call, cudaStream_t stream) {
  const int64_t rows = call.batches * call.base.p.num_heads_kv * call.rows;
  const int64_t blocks = ceil_div(rows, kSplitThreads / kSplitLanes);
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
