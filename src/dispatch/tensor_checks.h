// SPDX-License-Identifier: Apache-2.0
// Checks of single tensors and pairs of them, independent of what they mean.
#pragma once

#include "dispatch/message.h"
#include "dispatch/problem.h"

namespace attnmux {

/// dtype, rank, extents, device and address space: everything about one tensor that can be wrong by itself.
attnmux_code check_tensor(const char* name, const attnmux_tensor& t, Pointers pointers, attnmux_error* error);

/// `ndim` dimensions, as in "(B, Sq, Hq, D)".
attnmux_code check_rank(const char* name, const attnmux_tensor& t, int32_t ndim, const char* accepted,
                        attnmux_error* error);
attnmux_code check_extent(const char* name, const attnmux_tensor& t, int32_t dim, int64_t expected, const char* why,
                          attnmux_error* error);
attnmux_code check_contiguous_last(const char* name, const attnmux_tensor& t, attnmux_error* error);

/// An output whose elements share memory with each other cannot be written.
attnmux_code check_writable(const char* name, const attnmux_tensor& t, attnmux_error* error);

/// Do two tensors share a byte? Exact for contiguous and for interleaved layouts; otherwise errs towards yes.
bool overlaps(const attnmux_tensor& a, const attnmux_tensor& b);

int64_t num_elements(const attnmux_tensor& t);

}  // namespace attnmux
