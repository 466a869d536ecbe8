// SPDX-License-Identifier: Apache-2.0
// First hop: from the caller's arguments to one validated call in canonical form.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

enum class Pointers {
  kRequired,  // attention() and Plan::run()
  kOptional,  // plan() and explain(): null pointers are legal, values behind given ones are still checked
};

/// The options of a call, or the defaults where there are none; refuses a struct that this build does not understand.
attnmux_code read_options(const attnmux_options* given, const attnmux_options*& options, attnmux_error* error);

/// Validates everything that holds for every backend and fills `problem`. Allocates nothing.
attnmux_code make_problem(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                          const attnmux_tensor* out, const attnmux_options& options, Pointers pointers,
                          Problem& problem, attnmux_error* error);

/// make_problem without an output, for the oracle.
attnmux_code make_problem_without_output(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                                         const attnmux_options& options, Problem& problem, attnmux_error* error);

}  // namespace attnmux
