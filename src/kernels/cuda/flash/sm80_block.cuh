// SPDX-License-Identifier: Apache-2.0
// Which queries and keys a block of cuda_flash_sm80 or cuda_efficient has.
#pragma once

#include "kernels/cuda/flash/sm80_scores.cuh"

namespace attnmux {
namespace {

// `rows` queries of one head. Tiles of a head run side by side, to share K and V in L2; the last tile first, since a
// causal mask leaves it most.
struct QueryBlock {
  int64_t b, head, kv_head;
  Sequence s;
  int queries;                  // of the sequence
  int first_query, last_query;  // of the block
  Positions positions;
  // What the first query keeps begins and ends first, what the last keeps, last.
  int first_key, end_key;

  __device__ QueryBlock(const Problem& p, int64_t q_tiles, int rows)
      : b(int64_t{blockIdx.x} / q_tiles / p.num_heads_q),
        head(int64_t{blockIdx.x} / q_tiles % p.num_heads_q),
        kv_head(head / (p.num_heads_q / p.num_heads_kv)),
        s(sequence(p, b)),
        queries(static_cast<int>(s.seqlen_q)),
        first_query(static_cast<int>(q_tiles - 1 - int64_t{blockIdx.x} % q_tiles) * rows),
        last_query(min(first_query + rows, queries) - 1),
        positions(p, s),
        first_key(positions.begin(first_query)),
        end_key(positions.end(last_query)) {}
  __device__ bool empty() const { return first_query >= queries; }
};

// Where a block writes: computed again, behind the compiler's back, so that no offset holds registers during the loop.
struct OutputPlace {
  int64_t head;
  Sequence s;
  __device__ OutputPlace(const Problem& p, int64_t q_tiles) {
    int64_t item = int64_t{blockIdx.x};
    asm volatile("" : "+l"(item));
    item /= q_tiles;
    head = item % p.num_heads_q;
    s = sequence(p, item / p.num_heads_q);
  }
};

}  // namespace
}  // namespace attnmux
