// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/inputs.h"
#include "kernels/cuda/runtime/cuda_error.h"

namespace attnmux {
namespace {

constexpr int kThreads = 256;
constexpr uint16_t kMinusInfinityBf16 = 0xFF80, kMinusInfinityFp16 = 0xFC00;

unsigned blocks_for(int64_t items) { return static_cast<unsigned>(min_of(ceil_div(items, kThreads), 1 << 16)); }
__device__ int64_t first_item() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }
__device__ int64_t item_step() { return int64_t{gridDim.x} * kThreads; }

__device__ bool padded(const Problem& p, int64_t b, int64_t key) {
  return given(p.key_padding) && !attends(p.key_padding, b * p.key_padding.strides[0] + key * p.key_padding.strides[1]);
}

__global__ void lengths_kernel(__grid_constant__ const Problem p, int32_t* lengths_q, int32_t* lengths_kv) {
  for (int64_t b = first_item(); b < p.batch; b += item_step()) {
    lengths_q[b] = static_cast<int32_t>(p.seqlen_q);
    lengths_kv[b] = static_cast<int32_t>(sequence(p, b).key_length);
  }
}

__global__ void padding_kernel(__grid_constant__ const Problem p, int64_t pitch, uint16_t minus_infinity,
                               uint16_t* padding) {
  for (int64_t i = first_item(); i < p.batch * pitch; i += item_step()) {
    const int64_t b = i / pitch, key = i % pitch;
    // Behind the last key too there is a number: it is read with its neighbours.
    padding[i] = key < p.seqlen_kv && padded(p, b, key) ? minus_infinity : uint16_t{0};
  }
}

// The heads of one key after the other, 16 bytes per thread; zero where no query can attend to the key by its position.
// A block takes whole keys, so that what belongs to a key is worked out once.
__global__ void copy_kernel(__grid_constant__ const Problem p, __grid_constant__ const Tensor from, unsigned vectors,
                            uint4* to) {
  constexpr unsigned kElements = sizeof(uint4) / sizeof(uint16_t);
  const auto per_key = static_cast<unsigned>(p.num_heads_kv) * vectors;
  for (int64_t row = blockIdx.x; row < p.batch * p.seqlen_kv; row += gridDim.x) {
    const int64_t b = row / p.seqlen_kv, key = row % p.seqlen_kv;
    const Sequence s = sequence(p, b);
    const bool seen = key >= key_range(p, s, 0).first && key < key_range(p, s, p.seqlen_q - 1).last;
    const bool kept = seen && !padded(p, b, key);
    const auto* source = element<const uint16_t>(from, b * from.strides[0] + key * from.strides[1]);
    for (unsigned i = threadIdx.x; i < per_key; i += kThreads) {
      uint4 value{};
      if (kept)
        value = *reinterpret_cast<const uint4*>(source + i / vectors * from.strides[2] + i % vectors * kElements);
      to[row * per_key + i] = value;
    }
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

attnmux_code copy(const Problem& p, const Tensor& from, int64_t dim, void* to, cudaStream_t stream,
                  attnmux_error* error) {
  constexpr int64_t kElements = sizeof(uint4) / sizeof(uint16_t);
  const auto blocks = static_cast<unsigned>(min_of(p.batch * p.seqlen_kv, 1 << 16));
  copy_kernel<<<blocks, kThreads, 0, stream>>>(p, from, static_cast<unsigned>(dim / kElements),
                                               static_cast<uint4*>(to));
  ATTNMUX_CUDA_TRY(cudaGetLastError(), "launching the copies of cuda_cudnn");
  return ATTNMUX_OK;
}

}  // namespace

attnmux_code write_cudnn_inputs(const Problem& p, const CudnnShape& shape, const CudnnGraph::Pointers& pointers,
                                void* stream, attnmux_error* error) {
  const auto queue = static_cast<cudaStream_t>(stream);
  if (shape.has_lengths != 0) {
    lengths_kernel<<<blocks_for(p.batch), kThreads, 0, queue>>>(p, static_cast<int32_t*>(pointers.lengths_q),
                                                                static_cast<int32_t*>(pointers.lengths_kv));
    ATTNMUX_CUDA_TRY(cudaGetLastError(), "launching the lengths of cuda_cudnn");
  }
  if (shape.has_padding != 0) {
    const int64_t pitch = cudnn_padding_pitch(p.seqlen_kv);
    const uint16_t minus_infinity = p.dtype == ATTNMUX_BF16 ? kMinusInfinityBf16 : kMinusInfinityFp16;
    padding_kernel<<<blocks_for(p.batch * pitch), kThreads, 0, queue>>>(p, pitch, minus_infinity,
                                                                        static_cast<uint16_t*>(pointers.padding));
    ATTNMUX_CUDA_TRY(cudaGetLastError(), "launching the padding of cuda_cudnn");
  }
  attnmux_code code = ATTNMUX_OK;
  if (shape.copies_k != 0) code = copy(p, p.k, p.head_dim, pointers.k, queue, error);
  if (code == ATTNMUX_OK && shape.copies_v != 0) code = copy(p, p.v, p.head_dim_v, pointers.v, queue, error);
  return code;
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
