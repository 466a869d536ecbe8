// SPDX-License-Identifier: Apache-2.0
// The parts of make_problem that read masks, bias and packed sequences.
#pragma once

#include "dispatch/problem.h"

namespace attnmux {

attnmux_code read_varlen(const attnmux_options& options, Pointers pointers, Problem& problem, attnmux_error* error);
/// Needs the shapes, varlen included.
attnmux_code read_masks(const attnmux_options& options, Pointers pointers, Problem& problem, attnmux_error* error);

/// The values of the problem's key_lengths and cu_seqlens, where they are in host memory.
attnmux_code check_length_values(const Problem& problem, attnmux_error* error);

attnmux_code check_same_device(const char* name, const attnmux_tensor& t, const attnmux_tensor& q,
                               attnmux_error* error);
/// A struct of the C ABI may be larger than this build knows if the rest is zero.
attnmux_code check_struct(const char* name, const void* data, uint32_t struct_size, size_t known, attnmux_error* error,
                          size_t oldest = 0);
/// (S, H, D) as (1, S, H, D).
attnmux_tensor with_leading_one(const attnmux_tensor& t);

}  // namespace attnmux
