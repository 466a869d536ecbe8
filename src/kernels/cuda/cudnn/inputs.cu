// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/inputs.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/runtime/cuda_error.h"

namespace attnmux {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(int64_t items) { return static_cast<unsigned>(min_of(ceil_div(items, kThreads), 1 << 16)); }
__device__ int64_t first_item() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }
__device__ int64_t item_step() { return int64_t{gridDim.x} * kThreads; }

__global__ void lengths_kernel(__grid_constant__ const Problem p, int32_t* lengths_q, int32_t* lengths_kv) {
  for (int64_t b = first_item(); b < p.batch; b += item_step()) {
    lengths_q[b] = static_cast<int32_t>(p.seqlen_q);
    lengths_kv[b] = static_cast<int32_t>(clamped_entry(p.key_lengths, b, p.seqlen_kv));
  }
}

__device__ bool masked_out(const Problem& p, int64_t b, int64_t h, int64_t q, int64_t k) {
  if (given(p.key_padding) && !attends(p.key_padding, b * p.key_padding.strides[0] + k * p.key_padding.strides[1]))
    return true;
  const int64_t* s = p.dense_mask.strides;
  return given(p.dense_mask) && !attends(p.dense_mask, b * s[0] + h * s[1] + q * s[2] + k * s[3]);
}

template <typename T>
__global__ void bias_kernel(__grid_constant__ const Problem p, __grid_constant__ const CudnnShape shape, T* bias) {
  const int64_t pitch = shape.bias_stride[2];
  const int64_t rows = shape.bias_extent[0] * shape.bias_extent[1] * shape.bias_extent[2];
  for (int64_t i = first_item(); i < rows * pitch; i += item_step()) {
    const int64_t k = i % pitch, row = i / pitch;
    const int64_t q = row % shape.bias_extent[2], h = row / shape.bias_extent[2] % shape.bias_extent[1],
                  b = row / shape.bias_extent[2] / shape.bias_extent[1];
    float value = 0;  // behind the last key too: it is read with its neighbours
    if (k < p.seqlen_kv) {
      const int64_t* s = p.bias.strides;
      if (given(p.bias)) value = load_bias(p.bias, b * s[0] + h * s[1] + q * s[2] + k * s[3]);
      if (masked_out(p, b, h, q, k)) value = -INFINITY;
    }
    bias[i] = from_real<T>(value);
  }
}

__global__ void empty_rows_kernel(__grid_constant__ const Problem p) {
  const int64_t rows = p.batch * p.num_heads_q * p.seqlen_q;
  for (int64_t row = first_item(); row < rows; row += item_step()) {
    const int64_t query = row % p.seqlen_q, head = row / p.seqlen_q % p.num_heads_q,
                  b = row / p.seqlen_q / p.num_heads_q;
    const Sequence s = sequence(p, b);
    const KeyRange keys = key_range(p, s, query);
    if (keys.first < keys.last) continue;
    auto* out = element<uint16_t>(p.out, s.out_offset + query * p.out.strides[1] + head * p.out.strides[2]);
    for (int64_t d = 0; d < p.head_dim_v; ++d) out[d] = 0;  // of both dtypes
    if (given(p.lse))
      *element<float>(p.lse, s.lse_offset + head * p.lse.strides[1] + query * p.lse.strides[2]) = -INFINITY;
  }
}

}  // namespace

attnmux_code write_cudnn_lengths(const Problem& p, int32_t* lengths_q, int32_t* lengths_kv, void* stream,
                                 attnmux_error* error) {
  lengths_kernel<<<blocks_for(p.batch), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p, lengths_q, lengths_kv);
  ATTNMUX_CUDA_TRY(cudaGetLastError(), "launching the lengths of cuda_cudnn");
  return ATTNMUX_OK;
}

attnmux_code write_cudnn_bias(const Problem& p, const CudnnShape& shape, void* bias, void* stream,
                              attnmux_error* error) {
  const unsigned blocks = blocks_for(shape.bias_extent[0] * shape.bias_stride[0]);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (shape.bias_dtype == ATTNMUX_FP32) {
    bias_kernel<<<blocks, kThreads, 0, queue>>>(p, shape, static_cast<float*>(bias));
  } else if (shape.bias_dtype == ATTNMUX_FP16) {
    bias_kernel<<<blocks, kThreads, 0, queue>>>(p, shape, static_cast<__half*>(bias));
  } else {
    bias_kernel<<<blocks, kThreads, 0, queue>>>(p, shape, static_cast<__nv_bfloat16*>(bias));
  }
  ATTNMUX_CUDA_TRY(cudaGetLastError(), "launching the bias of cuda_cudnn");
  return ATTNMUX_OK;
}

bool may_have_empty_rows(const Problem& p) {
  if (given(p.key_lengths) || p.seqlen_kv == 0) return true;
  const Sequence s = sequence(p, 0);  // without lengths all are the same
  const KeyRange first = key_range(p, s, 0), last = key_range(p, s, p.seqlen_q - 1);
  return first.first >= first.last || last.first >= last.last;
}

attnmux_code write_empty_rows(const Problem& p, void* stream, attnmux_error* error) {
  const int64_t rows = p.batch * p.num_heads_q * p.seqlen_q;
  empty_rows_kernel<<<blocks_for(rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  ATTNMUX_CUDA_TRY(cudaGetLastError(), "launching the empty rows of cuda_cudnn");
  return ATTNMUX_OK;
}

}  // namespace attnmux
