// SPDX-License-Identifier: Apache-2.0
// Everything that happens to a block of scores between the product and the softmax.
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

// Hands the block of a tensor (B, Hq, Sq, Skv) that belongs to a block of scores to use(at, lanes), transposed like
// them: `at` is where the scores of the same key and rows lie. Without unit stride it goes through `extra`.
template <Source kSource, class Use>
inline void visit_block(const Tensor& t, const char* const* rows, int64_t vectors, const KeyBlock& block, float* extra,
                        const Use& use) {
  const int64_t size = element_bytes(t.dtype), stride = t.strides[3] * size, count = block.last - block.first;
  const char* shifted[kBlocking.rows];
  for (int64_t i = 0; i < vectors * kLanes; ++i) shifted[i] = rows[i] + block.first * stride;
  if (stride != size) {
    pack_strided_rows<kSource>(shifted, vectors, count, stride, extra);
    for (int64_t n = 0; n < count; ++n) {
      for (int64_t v = 0; v < vectors; ++v) {
        const int64_t at = n * kBlocking.rows + v * kLanes;
        use(at, load(extra + at));
      }
    }
    return;
  }
  // Narrow elements of neighbouring keys are transposed together.
  constexpr Source kUnits = kTogether<kSource>;
  constexpr int64_t kUnitKeys = kParts<kUnits>, kStep = kLanes * kUnitKeys;
  for (int64_t v = 0; v < vectors; ++v) {
    for (int64_t n = 0; n < count; n += kStep) {
      F x[kLanes];
      ATTNMUX_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) x[i] = load_some<kUnits>(shifted[v * kLanes + i] + n * size, (count - n) * size);
      transpose(x);
      const int64_t at = n * kBlocking.rows + v * kLanes;
      const auto use_unit = [&](int64_t i, int64_t keys) {
        ATTNMUX_UNROLL(4)
        for (int part = 0; part < kUnitKeys; ++part) {
          if (part < keys) use(at + (i * kUnitKeys + part) * kBlocking.rows, part_of<kUnits>(x[i], part));
        }
      };
      if (count - n >= kStep) {
        ATTNMUX_UNROLL(16)
        for (int i = 0; i < kLanes; ++i) use_unit(i, kUnitKeys);
      } else {
        for (int64_t i = 0; i * kUnitKeys < count - n; ++i) use_unit(i, count - n - i * kUnitKeys);
      }
    }
  }
}

// s + bias. Minus infinity masks whatever the key holds; otherwise what is finite stays finite.
inline F add_bias(F s, F bias) {
  const F clamped = smaller(broadcast(kLargest), larger(broadcast(-kLargest), s + bias));
  const F either = select(larger(s, bias) == broadcast(kInfinity), s + bias, clamped);
  return select(smaller(s, bias) == broadcast(-kInfinity), broadcast(-kInfinity), either);
}

// Products become scaled scores plus bias: `scale` is 1 where cap_scores() was there before.
inline void bias_scores(const Problem& p, const Rows& rows, const KeyBlock& block, float scale, float* extra,
                        float* scores) {
  const Tensor& t = p.bias;
  const F factor = broadcast(scale);
  const auto add = [&](int64_t at, F bias) {
    const F s = load(scores + at) * factor;
    const F sum = s + bias;
    // The special cases are rare, or masks, which come in runs.
    store(scores + at, all_finite(sum) ? sum : add_bias(s, bias));
  };
  if (same_for_all(rows.bias, rows.vectors)) {
    const int64_t stride = t.strides[3] * element_bytes(t.dtype);
    for (int64_t n = 0; n < block.last - block.first; ++n) {
      const F same = load_one(t.dtype, rows.bias[0] + (block.first + n) * stride);
      for (int64_t v = 0; v < rows.vectors; ++v) add(n * kBlocking.rows + v * kLanes, same);
    }
    return;
  }
  switch (t.dtype) {
    case ATTNMUX_FP16:
      return visit_block<Source::kFp16>(t, rows.bias, rows.vectors, block, extra, add);
    case ATTNMUX_BF16:
      return visit_block<Source::kBf16>(t, rows.bias, rows.vectors, block, extra, add);
    default:
      return visit_block<Source::kFp32>(t, rows.bias, rows.vectors, block, extra, add);
  }
}

// Makes products into scores in natural units: softcap·tanh(scale·s / softcap).
inline void cap_scores(float scale, float softcap, int64_t keys, int64_t vectors, float* scores) {
  const F factor = broadcast(scale / softcap), cap = broadcast(softcap);
  for (int64_t n = 0; n < keys; ++n) {
    for (int64_t v = 0; v < vectors; ++v) {
      float* at = scores + n * kBlocking.rows + v * kLanes;
      store(at, cap * tanh(load(at) * factor));
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
  visit_block<Source::kBytes>(t, rows.dense, rows.vectors, block, extra, [&](int64_t at, F kept) {
    store(scores + at, select(bits(kept) != 0, load(scores + at), broadcast(-kInfinity)));
  });
}

}  // namespace
}  // namespace attnmux
