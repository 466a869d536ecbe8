// SPDX-License-Identifier: Apache-2.0
// Everything that happens to a block of scores between the product and the softmax, and dropout's factors.
#pragma once

#include "kernels/cpu/flash/pack-inl.h"
#include "kernels/cpu/flash/rows-inl.h"

namespace attnmux {
namespace {

// Keys [first, last) of a block. `last` is where keys end that some row keeps; tiles may reach beyond it.
struct KeyBlock {
  int64_t first, last;
  int64_t keys() const { return round_up(last - first, kBlocking.key_step); }
};

inline bool same_for_all(const char* const* rows, int64_t vectors) {
  for (int64_t i = 1; i < vectors * kLanes; ++i) {
    if (rows[i] != rows[0]) return false;
  }
  return true;
}

// ---- Blocks that a mask empties -------------------------------------------------------------------------------------

inline bool any_byte(const char* bytes, int64_t count, int64_t stride) {
  int64_t i = 0;
  if (stride == 1) {
    for (; i + 8 <= count; i += 8) {
      uint64_t word;
      __builtin_memcpy(&word, bytes + i, 8);
      if (word != 0) return true;
    }
  }
  for (; i < count; ++i) {
    if (bytes[i * stride] != 0) return true;
  }
  return false;
}

inline bool is_empty(const Problem& p, const Rows& rows, const KeyBlock& block) {
  const int64_t count = block.last - block.first;
  if (const Tensor& t = p.key_padding; given(t)) {
    if (!any_byte(address(t, rows.batch * t.strides[0] + block.first * t.strides[1]), count, t.strides[1])) return true;
  }
  if (const Tensor& t = p.dense_mask; given(t)) {
    for (int64_t i = 0; i < rows.count; ++i) {
      if (i > 0 && rows.dense[i] == rows.dense[i - 1]) continue;
      if (any_byte(rows.dense[i] + block.first * t.strides[3], count, t.strides[3])) return false;
    }
    return true;
  }
  return false;
}

// ---- Scale, softcap, bias -------------------------------------------------------------------------------------------

// The block of a tensor (B, Hq, Sq, Skv) that belongs to a block of scores, transposed like them: to[key][row].
template <Source kSource>
inline void pack_block(const Tensor& t, const char* const* rows, int64_t vectors, const KeyBlock& block, float* to) {
  const int64_t size = element_bytes(t.dtype), stride = t.strides[3] * size, count = block.last - block.first;
  const char* shifted[kBlocking.rows];
  for (int64_t i = 0; i < vectors * kLanes; ++i) shifted[i] = rows[i] + block.first * stride;
  if (stride == size) {
    pack_rows<kSource>(shifted, vectors, count * size, kBlocking.key_block, to);
  } else {
    pack_strided_rows<kSource>(shifted, vectors, count, stride, to);
  }
}

// s + bias. Minus infinity masks whatever the key holds; otherwise what is finite stays finite.
inline F add_bias(F s, F bias) {
  const F clamped = smaller(broadcast(kLargest), larger(broadcast(-kLargest), s + bias));
  const F either = select(larger(s, bias) == broadcast(kInfinity), s + bias, clamped);
  return select(smaller(s, bias) == broadcast(-kInfinity), broadcast(-kInfinity), either);
}

inline void bias_scores(const Problem& p, const Rows& rows, const KeyBlock& block, float* extra, float* scores) {
  const Tensor& t = p.bias;
  const int64_t count = block.last - block.first, stride = t.strides[3] * element_bytes(t.dtype);
  const bool shared = same_for_all(rows.bias, rows.vectors);
  if (!shared) {
    switch (t.dtype) {
      case ATTNMUX_FP16:
        pack_block<Source::kFp16>(t, rows.bias, rows.vectors, block, extra);
        break;
      case ATTNMUX_BF16:
        pack_block<Source::kBf16>(t, rows.bias, rows.vectors, block, extra);
        break;
      default:
        pack_block<Source::kFp32>(t, rows.bias, rows.vectors, block, extra);
        break;
    }
  }
  for (int64_t n = 0; n < count; ++n) {
    const F same = shared ? load_one(t.dtype, rows.bias[0] + (block.first + n) * stride) : zero();
    for (int64_t v = 0; v < rows.vectors; ++v) {
      const int64_t at = n * kBlocking.rows + v * kLanes;
      store(scores + at, add_bias(load(scores + at), shared ? same : load(extra + at)));
    }
  }
}

// Makes products into scores in natural units: softcap·tanh(scale·s / softcap), or scale·s.
inline void scale_scores(float scale, float softcap, int64_t keys, int64_t vectors, float* scores) {
  const F factor = broadcast(softcap > 0 ? scale / softcap : scale), cap = broadcast(softcap);
  for (int64_t n = 0; n < keys; ++n) {
    for (int64_t v = 0; v < vectors; ++v) {
      float* at = scores + n * kBlocking.rows + v * kLanes;
      const F s = load(at) * factor;
      store(at, softcap > 0 ? cap * tanh(s) : s);
    }
  }
}

// ---- Masks ----------------------------------------------------------------------------------------------------------

inline void mask_key(float* scores, int64_t n, int64_t vectors) {
  for (int64_t v = 0; v < vectors; ++v) store(scores + n * kBlocking.rows + v * kLanes, broadcast(-kInfinity));
}

// Causal, window, length, and the keys that a tile has too many: only where not every row keeps the key.
inline void mask_range(const Rows& rows, const KeyBlock& block, float* scores) {
  const int64_t end = block.first + block.keys();
  const int64_t inner = min_of(max_of(rows.all.first, block.first), end),
                outer = min_of(max_of(rows.all.last, inner), end);
  if (inner == block.first && outer == end) return;
  alignas(64) int32_t first[kBlocking.rows], last[kBlocking.rows];
  for (int64_t i = 0; i < rows.vectors * kLanes; ++i) {
    first[i] = static_cast<int32_t>(min_of(max_of(rows.first[i] - block.first, 0), kBlocking.key_block));
    last[i] = static_cast<int32_t>(min_of(max_of(rows.last[i] - block.first, 0), kBlocking.key_block));
  }
  for (int64_t key = block.first; key < end; ++key) {
    if (key == inner) key = outer;
    if (key >= end) break;
    const I n = I{} + static_cast<int32_t>(key - block.first);
    for (int64_t v = 0; v < rows.vectors; ++v) {
      float* at = scores + (key - block.first) * kBlocking.rows + v * kLanes;
      const I kept = (load_int(first + v * kLanes) <= n) & (n < load_int(last + v * kLanes));
      store(at, select(kept, load(at), broadcast(-kInfinity)));
    }
  }
}

inline void mask_padding(const Problem& p, const Rows& rows, const KeyBlock& block, float* scores) {
  const Tensor& t = p.key_padding;
  for (int64_t key = block.first; key < block.last; ++key) {
    if (!attends(t, rows.batch * t.strides[0] + key * t.strides[1])) mask_key(scores, key - block.first, rows.vectors);
  }
}

inline void mask_dense(const Problem& p, const Rows& rows, const KeyBlock& block, float* extra, float* scores) {
  const Tensor& t = p.dense_mask;
  if (same_for_all(rows.dense, rows.vectors)) {
    for (int64_t key = block.first; key < block.last; ++key) {
      if (rows.dense[0][key * t.strides[3]] == 0) mask_key(scores, key - block.first, rows.vectors);
    }
    return;
  }
  pack_block<Source::kBytes>(t, rows.dense, rows.vectors, block, extra);
  for (int64_t n = 0; n < block.last - block.first; ++n) {
    for (int64_t v = 0; v < rows.vectors; ++v) {
      const int64_t at = n * kBlocking.rows + v * kLanes;
      store(scores + at, select(bits(load(extra + at)) != 0, load(scores + at), broadcast(-kInfinity)));
    }
  }
}

// ---- Dropout --------------------------------------------------------------------------------------------------------

// kept[key][row] = 1 / (1 - p) or 0. The rounds run over lanes so that the compiler can use vectors; the numbers are
// those of dropout_words().
inline void draw_dropout(const Problem& p, const Rows& rows, const KeyBlock& block, float* kept) {
  const uint32_t threshold = dropout_threshold(p.dropout_p);
  const auto factor = static_cast<float>(1 / (1 - p.dropout_p));
  for (int64_t n = 0; n < block.keys(); n += 4) {
    for (int64_t v = 0; v < rows.vectors; ++v) {
      uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        c0[i] = static_cast<uint32_t>((block.first + n) / 4);
        c1[i] = static_cast<uint32_t>(rows.query[v * kLanes + i]);
        c2[i] = static_cast<uint32_t>(rows.batch * p.num_heads_q + rows.head[v * kLanes + i]);
        c3[i] = static_cast<uint32_t>(p.dropout_offset);
      }
      uint32_t k0 = static_cast<uint32_t>(p.dropout_seed), k1 = static_cast<uint32_t>(p.dropout_seed >> 32);
      for (int round = 0; round < 10; ++round) {
        for (int64_t i = 0; i < kLanes; ++i) {
          const uint64_t p0 = uint64_t{0xD2511F53} * c0[i], p1 = uint64_t{0xCD9E8D57} * c2[i];
          c0[i] = static_cast<uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
          c2[i] = static_cast<uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
          c1[i] = static_cast<uint32_t>(p1);
          c3[i] = static_cast<uint32_t>(p0);
        }
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
      }
      float* to = kept + n * kBlocking.rows + v * kLanes;
      for (int64_t i = 0; i < kLanes; ++i) {
        to[i] = (c0[i] >> 8) >= threshold ? factor : 0.0f;
        to[kBlocking.rows + i] = (c1[i] >> 8) >= threshold ? factor : 0.0f;
        to[2 * kBlocking.rows + i] = (c2[i] >> 8) >= threshold ? factor : 0.0f;
        to[3 * kBlocking.rows + i] = (c3[i] >> 8) >= threshold ? factor : 0.0f;
      }
    }
  }
}

}  // namespace
}  // namespace attnmux
