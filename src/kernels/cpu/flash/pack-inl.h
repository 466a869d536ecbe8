// SPDX-License-Identifier: Apache-2.0
// From the caller's rows to packed operands: Q, masks and biases are transposed so that queries lie in the lanes, K is
// interleaved by kTile keys, V by kTile columns.
#pragma once

#include "kernels/cpu/flash/layout.h"
#include "kernels/cpu/flash/vector-inl.h"

namespace attnmux {
namespace {

// What becomes of memory on its way into lanes.
enum class Source {
  kFp32,
  kFp16,   // widened
  kBf16,   // widened
  kPairs,  // two bf16, kept as they are
  kSplit,  // two bf16, widened apart: a vector of memory becomes one of the even columns and one of the odd ones
  kBytes,  // one-byte booleans: all bits set for true
  kQuads,  // four of them, told apart by masking: not zero for true
};

template <Source kSource>
constexpr int64_t kSourceBytes = kSource == Source::kFp16 || kSource == Source::kBf16 ? 2
                                 : kSource == Source::kBytes                          ? 1
                                                                                      : 4;
// Vectors that load_lanes() and part_of() make of one of memory.
template <Source kSource>
constexpr int kParts = kSource == Source::kSplit   ? 2
                       : kSource == Source::kQuads ? 4
                                                   : 1;
// The same elements, as many to a lane as fit.
template <Source kSource>
constexpr Source kTogether = kSource == Source::kBf16    ? Source::kSplit
                             : kSource == Source::kBytes ? Source::kQuads
                                                         : kSource;

template <Source kSource>
inline F load_lanes(const void* from) {
  if constexpr (kSource == Source::kFp16) return load_fp16(from);
  if constexpr (kSource == Source::kBf16) return load_bf16(from);
  if constexpr (kSource == Source::kBytes) return load_bytes_as_mask(from);
  return load(static_cast<const float*>(from));
}

// The first `bytes` bytes of a vector; the rest is zero, and memory behind them is not touched.
template <Source kSource>
inline F load_some(const char* from, int64_t bytes) {
  if (bytes >= kLanes * kSourceBytes<kSource>) return load_lanes<kSource>(from);
  alignas(64) char buffer[kLanes * 4] = {};
  copy_some(buffer, from, bytes);
  return load_lanes<kSource>(buffer);
}

// Part of what load_lanes() or load_some() returned. Widening bf16 like this takes an instruction a vector and no
// shuffle.
template <Source kSource>
inline F part_of(F x, int part) {
  if constexpr (kSource == Source::kSplit) {
    return from_bits(part == 0 ? bits(x) << 16 : bits(x) & static_cast<int32_t>(0xffff0000));
  }
  if constexpr (kSource == Source::kQuads) return from_bits(bits(x) & static_cast<int32_t>(0xffu << 8 * part));
  return x;
}

// One element, widened, in every lane.
inline F load_one(int32_t dtype, const char* from) {
  const F x = dtype == ATTNMUX_FP16   ? load_some<Source::kFp16>(from, 2)
              : dtype == ATTNMUX_BF16 ? load_some<Source::kBf16>(from, 2)
                                      : load_some<Source::kFp32>(from, 4);
  return broadcast(x[0]);
}

// Transposes rows into to[unit][kBlocking.rows]: `bytes` contiguous bytes from each of vectors·kLanes rows, and zeros
// up to the next multiple of kLanes, but no more than `max_units`.
template <Source kSource>
inline void pack_rows(const char* const* rows, int64_t vectors, int64_t bytes, int64_t max_units, float* to) {
  constexpr int64_t kChunk = kLanes * kSourceBytes<kSource>;
  for (int64_t v = 0; v < vectors; ++v) {
    for (int64_t at = 0, unit = 0; at < bytes; at += kChunk, unit += kLanes) {
      F x[kLanes];
      ATTNMUX_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) x[i] = load_some<kSource>(rows[v * kLanes + i] + at, bytes - at);
      transpose(x);
      ATTNMUX_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) {
        if (unit + i < max_units) store(to + (unit + i) * kBlocking.rows + v * kLanes, x[i]);
      }
    }
  }
}

// The same for `count` elements that are `stride` bytes apart (any stride, also 0 or negative).
template <Source kSource>
inline void pack_strided_rows(const char* const* rows, int64_t vectors, int64_t count, int64_t stride, float* to) {
  constexpr int64_t kSize = kSourceBytes<kSource>;
  for (int64_t r = 0; r < vectors * kLanes; ++r) {
    for (int64_t i = 0; i < count; i += kLanes) {
      alignas(64) char buffer[kLanes * 4] = {};
      const int64_t left = min_of(kLanes, count - i);
      for (int64_t j = 0; j < left; ++j) __builtin_memcpy(buffer + j * kSize, rows[r] + (i + j) * stride, kSize);
      float lanes[kLanes];
      store(lanes, load_lanes<kSource>(buffer));
      for (int64_t j = 0; j < left; ++j) __builtin_memcpy(to + (i + j) * kBlocking.rows + r, lanes + j, 4);
    }
  }
}

// kTile rows of K, `bytes` long (null: zeros), become to[unit][kTile].
template <Source kSource>
inline void pack_key_tile(const char* const (&rows)[kTile], int64_t bytes, int64_t units, float* to) {
  constexpr int64_t kChunk = kLanes * kSourceBytes<kSource>;
  for (int64_t at = 0, unit = 0; at < bytes; at += kChunk, unit += kLanes) {
    F x[kTile];
    ATTNMUX_UNROLL(4)
    for (int i = 0; i < kTile; ++i) x[i] = rows[i] == nullptr ? zero() : load_some<kSource>(rows[i] + at, bytes - at);
    F even[2], odd[2], out[kTile];
    zip(x[0], x[2], even[0], even[1]);
    zip(x[1], x[3], odd[0], odd[1]);
    zip(even[0], odd[0], out[0], out[1]);
    zip(even[1], odd[1], out[2], out[3]);
    const int64_t left = (units - unit) * kTile;
    ATTNMUX_UNROLL(4)
    for (int i = 0; i < kTile; ++i) {
      if (i * kLanes + kLanes <= left) {
        store(to + unit * kTile + i * kLanes, out[i]);
      } else if (i * kLanes < left) {
        float lanes[kLanes];
        store(lanes, out[i]);
        for (int64_t j = 0; j < left - i * kLanes; ++j) to[unit * kTile + i * kLanes + j] = lanes[j];
      }
    }
  }
}

// kLanes columns of V at `at`, of one key (fp32 units) or of two (pairs). A null row is zeros.
template <class Product, Source kSource>
inline F load_values(const char* const* rows, int64_t at, int64_t bytes) {
  if constexpr (Product::kElements == 1) {
    return rows[0] == nullptr ? zero() : load_some<kSource>(rows[0] + at, bytes - at);
  } else {
    const F low = rows[0] == nullptr ? zero() : load_some<Source::kBf16>(rows[0] + at, bytes - at);
    const F high = rows[1] == nullptr ? zero() : load_some<Source::kBf16>(rows[1] + at, bytes - at);
    return from_bits((bits(high) & static_cast<int32_t>(0xffff0000)) | ((bits(low) >> 16) & 0xffff));
  }
}

// `units` <= kTile key units of V, rows of `bytes`, become to[d / kTile][key unit][kTile]; `stride` floats lie between
// tiles.
template <class Product, Source kSource>
inline void pack_value_rows(const char* const (&rows)[kTile * Product::kElements], int64_t bytes, int64_t tiles,
                            int64_t stride, int64_t units, float* to) {
  constexpr int64_t kChunk = kLanes * (kSource == Source::kPairs ? 2 : kSourceBytes<kSource>);
  constexpr int64_t kTiles = kLanes / kTile, kVectors = kTile / kTiles;  // tiles in a chunk; vectors of each
  for (int64_t at = 0, tile = 0; at < bytes; at += kChunk, tile += kTiles) {
    F x[kTile];
    ATTNMUX_UNROLL(4)
    for (int64_t i = 0; i < kTile; ++i) x[i] = load_values<Product, kSource>(rows + i * Product::kElements, at, bytes);
    transpose_quads(x);
    for (int64_t t = 0; t < min_of(kTiles, tiles - tile); ++t) {
      float* to_tile = to + (tile + t) * stride;
      if (units == kTile) {
        ATTNMUX_UNROLL(4)
        for (int64_t j = 0; j < kVectors; ++j) store(to_tile + j * kLanes, x[t * kVectors + j]);
      } else {
        float some[kTile * kTile];
        for (int64_t j = 0; j < kVectors; ++j) store(some + j * kLanes, x[t * kVectors + j]);
        __builtin_memcpy(to_tile, some, static_cast<size_t>(units * kTile) * sizeof(float));
      }
    }
  }
}

}  // namespace
}  // namespace attnmux
