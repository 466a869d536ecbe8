// SPDX-License-Identifier: Apache-2.0
// The oracle: the numerics contract as the plainest loops that say it. Slow, obvious, and shared with no kernel.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

/// Everything in double (long double for fp64 inputs, whose kernels compute in double). `out` and `lse` are contiguous,
/// as attnmux_oracle describes; `lse` may be null.
void reference_attention(const Problem& problem, double* out, double* lse);

/// The textbook loop that tolerances are derived from: scores and softmax in fp32, P rounded to the input dtype before
/// PV, fp32 accumulation, output rounded to the input dtype; of e4m3 inputs P is rounded relative to a
/// power of two (docs/numerics.md) and the output to bf16; fp32 inputs in fp32 throughout, fp64 inputs in fp64.
void plain_attention(const Problem& problem, double* out, double* lse);

}  // namespace attnmux
