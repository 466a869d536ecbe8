// SPDX-License-Identifier: Apache-2.0
// Blocking and memory of the flash kernels, as plain numbers: shared by the kernels and by workspace_bytes, which must
// not run a wide instruction. Internal linkage for the reason that kernels/kernel.h gives.
//
// A "unit" is 32 bits of a packed operand: one fp32, or two neighbouring bf16 for an instruction that multiplies pairs.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {
namespace {

// Keys of K, or columns of V, whose units lie next to each other and are broadcast one after the other.
constexpr int64_t kTile = 4;
// Rows of a tile of K or V, in units, for an instruction that multiplies whole tiles; a row of them has as many units.
constexpr int64_t kSquare = 16;
// Keys that one packing item takes.
constexpr int64_t kPackKeys = 256;

// What the instruction set decides.
struct Blocking {
  int64_t lanes;                            // fp32 numbers in a vector
  int64_t rows;                             // query rows of a block, a multiple of lanes
  bool multiplies_bf16;                     // bf16 inputs stay bf16, two to a unit
  int64_t tile = kTile;                     // keys of K, or columns of V, packed together
  int64_t key_step = kTile, unit_step = 1;  // what keys, and units of Q and K, are padded to
  // Keys between two rounds of the softmax. 96 to 512 measured alike; fewer cost time, more cost cache.
  int64_t key_block = 128;
  int64_t row_blocks = 1;                // blocks of query rows that a task computes side by side
  bool decodes_pairs = multiplies_bf16;  // also few queries (decode-inl.h) are multiplied in pairs of bf16
};

[[maybe_unused]] constexpr Blocking kBlockingBaseline{4, 48, false};
[[maybe_unused]] constexpr Blocking kBlockingAvx2{8, 48, false};
[[maybe_unused]] constexpr Blocking kBlockingAvx512{16, 64, false};
[[maybe_unused]] constexpr Blocking kBlockingAvx512Bf16{16, 64, true};
// A row of a tile of V^T holds 32 keys. What a block of 32 rows needs all the time, Q and two squares of scores, is 16
// KiB at head_dim 128 and stays in the first-level cache; blocks of 256 keys, whose weights do not, save loads and
// stores of the output and are up to a tenth faster than 128. Vectors of processors with tiles
// multiply pairs of bf16 at half the rate of fp32: few queries are 1.4 times as fast from the caches widened.
[[maybe_unused]] constexpr Blocking kBlockingAmx{16, 32, true, kSquare, 2 * kSquare, kSquare, 256, 8, false};

constexpr int64_t kCacheLine = 64;
constexpr int64_t kFirstLevelCache = 32 << 10;  // bytes, of the smallest in use
// Room for packed K and V. Beyond it, heads are packed and computed in several rounds, each with enough heads to feed
// all threads also when queries are few. It must not depend on the number of queries: more of them must never need
// less.
constexpr int64_t kPackedBudget = int64_t{128} << 20, kPackedBudgetPerThread = int64_t{8} << 20;

// Calls with fewer multiply-adds than this run in the calling thread: they take a few microseconds, and waking a thread
// that sleeps costs 20 to 50.
constexpr int64_t kInlineProducts = 1 << 20;

// The next work item, or the first of `count`, from a counter that all tasks share.
[[maybe_unused]] inline int64_t take_item(int64_t& next, int64_t count = 1) {
  return __atomic_fetch_add(&next, count, __ATOMIC_RELAXED);
}

// Where a sequence of the batch starts: its packed keys (bytes, if everything was packed at once) and its work items.
struct SequenceStart {
  int64_t packed, item;
};

// Sizes in bytes, offsets from the start of the workspace or of a task's scratch.
struct Layout {
  int64_t elements_per_unit;
  int64_t units;                          // of a row of Q or K, padded
  int64_t value_tiles;                    // of a row of V
  int64_t tile, key_step;                 // of the blocking
  int64_t scratch;                        // one task's
  int64_t accumulator, state, row_block;  // of a block of rows: within it, Q comes first; its size
  int64_t scores, extra;                  // within scratch, behind the blocks of rows
  int64_t scratch_offset, packed_offset;  // within the workspace; the table of SequenceStart comes first
  int64_t packed;                         // room for packed K and V
  int64_t total;
};

// Packed bytes of one (sequence, kv head) of `keys` keys. Broadcast units: K is [key / 4][unit][4 keys], V is
// [d / 4][key unit][4 d]. Whole tiles: K is [key / 16][unit / 16][16 keys][16 units], V is
// [d / 16][key unit / 16][16 d][16 key units].
[[maybe_unused]] inline int64_t packed_keys_bytes(const Layout& l, int64_t keys) {
  return round_up(keys, l.key_step) * l.units * 4;
}
[[maybe_unused]] inline int64_t packed_values_stride(const Layout& l, int64_t keys) {
  return round_up(keys, l.key_step) / l.elements_per_unit * l.tile;  // in units
}
[[maybe_unused]] inline int64_t packed_bytes(const Layout& l, int64_t keys) {
  return round_up(packed_keys_bytes(l, keys) + packed_values_stride(l, keys) * l.value_tiles * 4, kCacheLine);
}

[[maybe_unused]] inline Layout make_layout(const Problem& p, const Blocking& blocking, int64_t num_threads) {
  Layout l{};
  l.elements_per_unit = p.dtype == ATTNMUX_BF16 && blocking.multiplies_bf16 ? 2 : 1;
  l.tile = blocking.tile;
  l.key_step = blocking.key_step;
  l.units = round_up(ceil_div(p.head_dim, l.elements_per_unit), blocking.unit_step);
  l.value_tiles = ceil_div(p.head_dim_v, l.tile);
  const int64_t row_bytes = blocking.rows * 4;
  l.accumulator = l.units * row_bytes;
  l.state = l.accumulator + l.value_tiles * l.tile * row_bytes;
  l.row_block = l.state + 4 * row_bytes;
  // Side by side: two squares of scores, and two blocks of weights, whose units hold two keys.
  const int64_t score_rows = blocking.key_block + (blocking.row_blocks == 1 ? 0 : 2 * blocking.key_step);
  l.scores = blocking.row_blocks * l.row_block;
  l.extra = l.scores + score_rows * row_bytes;
  l.scratch = l.extra + blocking.key_block * row_bytes;
  l.scratch_offset = round_up((p.batch + 1) * static_cast<int64_t>(sizeof(SequenceStart)), kCacheLine);
  l.packed_offset = l.scratch_offset + num_threads * l.scratch;
  // A round holds at least one kv head of the longest sequence.
  const int64_t one = packed_bytes(l, p.seqlen_kv);
  // Packed sequences may be much shorter than the longest; each is padded to a tile and a cache line.
  const int64_t together = packed_bytes(l, p.k.shape[1] + p.batch * l.key_step) + p.batch * kCacheLine;
  const int64_t sequences = given(p.cu_seqlens_q) ? together : p.batch * one;
  l.packed = max_of(one, min_of(p.num_heads_kv * sequences, kPackedBudget + num_threads * kPackedBudgetPerThread));
  l.total = l.packed_offset + l.packed;
  return l;
}

}  // namespace
}  // namespace attnmux
