// SPDX-License-Identifier: Apache-2.0
// The copy of V that the kernel of sm90_fp8.h reads: transposed, its keys in value_order, and zero where nobody
// attends.
#pragma once

#include "kernels/cuda/flash/sm90_fp8_tile.cuh"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace attnmux {
namespace {

constexpr int kValueThreads = 256,
              kValuePitch = 16;  // bytes between rows of a tile in shared memory, beyond the columns

// Bytes i of four words become word i: a transposed 4×4.
__device__ inline void transpose_bytes(const uint32_t (&row)[4], uint32_t (&column)[4]) {
  const uint32_t low01 = __byte_perm(row[0], row[1], 0x5140), high01 = __byte_perm(row[0], row[1], 0x7362);
  const uint32_t low23 = __byte_perm(row[2], row[3], 0x5140), high23 = __byte_perm(row[2], row[3], 0x7362);
  column[0] = __byte_perm(low01, low23, 0x5410);
  column[1] = __byte_perm(low01, low23, 0x7632);
  column[2] = __byte_perm(high01, high23, 0x5410);
  column[3] = __byte_perm(high01, high23, 0x7632);
}

// A block has kFlashSm90ValueBlock keys of one head: (keys, heads, batch entries). The first one clears the counters.
template <int kColumns>
__global__ void __launch_bounds__(kValueThreads)
    transpose_values(const __grid_constant__ FlashSm90Call call, uint8_t* values, int64_t value_keys) {
  constexpr int kKeys = static_cast<int>(kFlashSm90ValueBlock), kRow = kColumns + kValuePitch;
  __shared__ __align__(16) uint8_t tile[kKeys * kRow];
  ptx::launch_dependents();
  if (call.shares.share != 0 && blockIdx.x + blockIdx.y + blockIdx.z == 0) {
    for (int i = static_cast<int>(threadIdx.x); i < kFlashSm90ArrivalBytes / 4; i += kValueThreads)
      call.arrivals[i] = 0;
  }
  const Problem& p = call.p;
  const int b = static_cast<int>(blockIdx.z), head = static_cast<int>(blockIdx.y),
            first = static_cast<int>(blockIdx.x) * kKeys;
  const bool packed = given(p.cu_seqlens_q);
  const Sm90Sequence s = sm90_sequence(call, b);
  if (packed && first >= s.keys) return;
  const Sequence of = sequence(p, b);
  const int begin = static_cast<int>(key_range(p, of, 0).first);
  const int end = static_cast<int>(key_range(p, of, of.seqlen_q - 1).last);
  const uint8_t* from = element<const uint8_t>(
      p.v, s.batch * p.v.strides[0] + (s.kv_row + first) * p.v.strides[1] + head * p.v.strides[2]);
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * (kColumns / 16); i += kValueThreads) {
    const int key = i / (kColumns / 16), column = i % (kColumns / 16) * 16;
    uint4 piece = make_uint4(0, 0, 0, 0);
    if (first + key >= begin && first + key < end && column < p.head_dim_v)
      piece = *reinterpret_cast<const uint4*>(from + key * p.v.strides[1] + column);
    *reinterpret_cast<uint4*>(tile + key * kRow + column) = piece;
  }
  __syncthreads();
  uint8_t* to =
      values + ((s.batch * p.num_heads_kv + head) * p.head_dim_v) * value_keys + first_value(s, packed, b) + first;
  // 16 keys of four columns at a time. Two lanes side by side write 32 bytes of a row; more would read the same banks.
  for (int i = static_cast<int>(threadIdx.x); i < kKeys / 16 * (kColumns / 4); i += kValueThreads) {
    const int column = i / 2 % (kColumns / 4) * 4, keys = (i / (kColumns / 2) * 2 + i % 2) * 16;
    if (column >= p.head_dim_v) continue;
    uint32_t word[4][4];  // of column, of keys
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      uint32_t row[4], across[4];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        row[j] = *reinterpret_cast<const uint32_t*>(tile + (keys + value_order(quad * 4 + j)) * kRow + column);
      transpose_bytes(row, across);
#pragma unroll
      for (int j = 0; j < 4; ++j) word[j][quad] = across[j];
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      *reinterpret_cast<uint4*>(to + (column + j) * value_keys + keys) =
          make_uint4(word[j][0], word[j][1], word[j][2], word[j][3]);
    }
  }
}

}  // namespace
}  // namespace attnmux
