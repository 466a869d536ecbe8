// SPDX-License-Identifier: Apache-2.0
// What every kernel sees: the canonical problem, the geometry of its sequences and masks, and helpers to read tensors.
//
// This header is included by files that are compiled for wide instruction sets. Everything here therefore has internal
// linkage (an inline function would become a weak symbol, and the linker might keep the AVX-512 copy for a machine
// without AVX-512), and it uses no standard library template.
#pragma once

#include <attnmux/c/plugin.h>

#include <cstdint>

// The geometry and the random numbers of the contract are the same code on a GPU.
#ifdef __CUDACC__
#define ATTNMUX_DEVICE __host__ __device__
#else
#define ATTNMUX_DEVICE
#endif

namespace attnmux {

using Problem = attnmux_problem;
using RunContext = attnmux_run_context;
using Reason = attnmux_reason;
using Kernel = attnmux_kernel;
using Tensor = attnmux_tensor;

namespace {

[[maybe_unused]] constexpr int64_t kUnlimited = -1;

[[maybe_unused]] ATTNMUX_DEVICE constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
[[maybe_unused]] ATTNMUX_DEVICE constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
[[maybe_unused]] ATTNMUX_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
[[maybe_unused]] ATTNMUX_DEVICE constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

[[maybe_unused]] ATTNMUX_DEVICE inline bool has(const Problem& p, uint64_t features) {
  return (p.features & features) == features;
}
[[maybe_unused]] ATTNMUX_DEVICE inline bool given(const Tensor& t) { return t.dtype != 0; }

// The pointer to element `offset` (in elements) of a tensor.
template <typename T>
ATTNMUX_DEVICE inline T* element(const Tensor& t, int64_t offset) {
  return static_cast<T*>(t.data) + offset;
}

// Entry i of a rank-1 int32 tensor (key_lengths, cu_seqlens), clamped to [0, limit]: a captured graph may be replayed
// with other values, and a wrong one must never lead out of bounds.
[[maybe_unused]] ATTNMUX_DEVICE inline int64_t clamped_entry(const Tensor& t, int64_t i, int64_t limit) {
  const int64_t value = *element<const int32_t>(t, i * t.strides[0]);
  return value < 0 ? 0 : min_of(value, limit);
}

// A descale: what the elements of a tensor are multiplied by. It is per batch entry and key head.
[[maybe_unused]] ATTNMUX_DEVICE inline float descale_of(const Tensor& t, int64_t b, int64_t kv_head) {
  return given(t) ? *element<const float>(t, b * t.strides[0] + kv_head * t.strides[1]) : 1.0f;
}

// One sequence of the batch. Offsets count elements from the tensor's data pointer to row 0, head 0 of the sequence.
struct Sequence {
  int64_t seqlen_q;    // query rows
  int64_t seqlen_kv;   // key rows that exist; masks and bias are indexed by them
  int64_t key_length;  // keys [0, key_length) can be attended; at most seqlen_kv
  int64_t delta;       // causal keeps j <= i + delta
  int64_t q_offset, k_offset, v_offset, out_offset, lse_offset;
};

[[maybe_unused]] ATTNMUX_DEVICE inline Sequence sequence(const Problem& p, int64_t b) {
  Sequence s{};
  if (given(p.cu_seqlens_q)) {
    const int64_t total_q = p.q.shape[1], total_kv = p.k.shape[1];
    const int64_t q0 = clamped_entry(p.cu_seqlens_q, b, total_q), q1 = clamped_entry(p.cu_seqlens_q, b + 1, total_q);
    const int64_t k0 = clamped_entry(p.cu_seqlens_kv, b, total_kv),
                  k1 = clamped_entry(p.cu_seqlens_kv, b + 1, total_kv);
    s.seqlen_q = min_of(max_of(q1 - q0, 0), p.seqlen_q);
    s.seqlen_kv = min_of(max_of(k1 - k0, 0), p.seqlen_kv);
    s.q_offset = q0 * p.q.strides[1];
    s.k_offset = k0 * p.k.strides[1];
    s.v_offset = k0 * p.v.strides[1];
    s.out_offset = q0 * p.out.strides[1];
    s.lse_offset = given(p.lse) ? q0 * p.lse.strides[2] : 0;
  } else {
    s.seqlen_q = p.seqlen_q;
    s.seqlen_kv = p.seqlen_kv;
    s.q_offset = b * p.q.strides[0];
    s.k_offset = b * p.k.strides[0];
    s.v_offset = b * p.v.strides[0];
    s.out_offset = b * p.out.strides[0];
    s.lse_offset = given(p.lse) ? b * p.lse.strides[0] : 0;
  }
  s.key_length = given(p.key_lengths) ? clamped_entry(p.key_lengths, b, s.seqlen_kv) : s.seqlen_kv;
  s.delta = p.align == ATTNMUX_ALIGN_BOTTOM_RIGHT ? s.key_length - s.seqlen_q : 0;
  return s;
}

// Keys [first, last) that causal, window and key length leave to a query; the other masks may take more away.
struct KeyRange {
  int64_t first, last;
};

[[maybe_unused]] ATTNMUX_DEVICE inline KeyRange key_range(const Problem& p, const Sequence& s, int64_t query) {
  const int64_t diagonal = query + s.delta;
  const int64_t first = p.window_left < 0 ? 0 : max_of(0, diagonal - p.window_left);
  // A window may be as wide as int64 allows: compare before adding.
  const int64_t last =
      p.window_right < 0 || p.window_right >= s.key_length - diagonal ? s.key_length : diagonal + p.window_right + 1;
  return {min_of(first, s.key_length), max_of(last, 0)};
}

// Does the one-byte mask `t` (key_padding or dense_mask) say attend?
[[maybe_unused]] ATTNMUX_DEVICE inline bool attends(const Tensor& t, int64_t offset) {
  return *element<const uint8_t>(t, offset) != 0;
}

// ---- Dropout: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11) --------------------

struct Philox {
  uint32_t word[4];
};

[[maybe_unused]] ATTNMUX_DEVICE inline Philox philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c0, p1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

// u = (word >> 8)·2^-24 is uniform on [0, 1); a probability is kept if u >= p, which is this integer compare.
[[maybe_unused]] ATTNMUX_DEVICE inline uint32_t dropout_threshold(double p) {
  const double scaled = p * 16777216.0;
  const auto whole = static_cast<uint32_t>(scaled);
  return static_cast<double>(whole) < scaled ? whole + 1 : whole;
}

// The four words that decide the keys 4·key_block … 4·key_block+3 of one query row.
[[maybe_unused]] ATTNMUX_DEVICE inline Philox dropout_words(const Problem& p, int64_t b, int64_t head, int64_t query,
                                                            int64_t key_block) {
  return philox(p.dropout_seed, static_cast<uint32_t>(key_block), static_cast<uint32_t>(query),
                static_cast<uint32_t>(b * p.num_heads_q + head), static_cast<uint32_t>(p.dropout_offset));
}

[[maybe_unused]] ATTNMUX_DEVICE inline bool dropout_keeps(const Problem& p, int64_t b, int64_t head, int64_t query,
                                                          int64_t key) {
  return (dropout_words(p, b, head, query, key / 4).word[key % 4] >> 8) >= dropout_threshold(p.dropout_p);
}

}  // namespace

// Writes a refusal; `reason` may be null, and the text is cut to fit.
void refuse(Reason* reason, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Fills `error`, which may be null, with "[attention] " and the text, and returns the code: for kernels, which know
// nothing of dispatch.
attnmux_code fail_with(attnmux_error* error, attnmux_code code, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

}  // namespace attnmux
