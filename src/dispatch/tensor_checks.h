// SPDX-License-Identifier: Apache-2.0
// Checks of single tensors and pairs of them, independent of what they mean.
#pragma once

#include "dispatch/message.h"
#include "dispatch/problem.h"

namespace attnmux {

/// dtype, rank, extents, device and address space: everything about one tensor that can be wrong by itself.
attnmux_code check_tensor(const char* name, const attnmux_tensor& t, Pointers pointers, attnmux_error* error);

// What the checks below say when they do not hold. Every call makes a dozen of them: holding must cost next to nothing.
attnmux_code refuse_rank(const char* name, const attnmux_tensor& t, const char* accepted, attnmux_error* error);
attnmux_code refuse_extent(const char* name, const attnmux_tensor& t, int32_t dim, int64_t expected, const char* why,
                           attnmux_error* error);
attnmux_code refuse_last_stride(const char* name, const attnmux_tensor& t, attnmux_error* error);

/// `ndim` dimensions, as in "(B, Sq, Hq, D)".
inline attnmux_code check_rank(const char* name, const attnmux_tensor& t, int32_t ndim, const char* accepted,
                               attnmux_error* error) {
  return t.ndim == ndim ? ATTNMUX_OK : refuse_rank(name, t, accepted, error);
}
inline attnmux_code check_extent(const char* name, const attnmux_tensor& t, int32_t dim, int64_t expected,
                                 const char* why, attnmux_error* error) {
  return t.shape[dim] == expected ? ATTNMUX_OK : refuse_extent(name, t, dim, expected, why, error);
}
inline attnmux_code check_contiguous_last(const char* name, const attnmux_tensor& t, attnmux_error* error) {
  const int32_t last = t.ndim - 1;
  return t.shape[last] <= 1 || t.strides[last] == 1 ? ATTNMUX_OK : refuse_last_stride(name, t, error);
}

/// An output whose elements share memory with each other cannot be written.
attnmux_code check_writable(const char* name, const attnmux_tensor& t, attnmux_error* error);

/// Do two tensors share a byte? Exact for contiguous and for interleaved layouts; otherwise errs towards yes.
bool overlaps(const attnmux_tensor& a, const attnmux_tensor& b);

int64_t num_elements(const attnmux_tensor& t);

}  // namespace attnmux
