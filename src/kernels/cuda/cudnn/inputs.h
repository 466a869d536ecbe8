// SPDX-License-Identifier: Apache-2.0
// What cuDNN wants in another form than the contract gives it, made on the device before its graph runs, and what it
// leaves undone, after it.
#pragma once

#include "kernels/cuda/cudnn/shape.h"

namespace attnmux {

/// (B) int32 each: the number of queries, and the key lengths clamped to what exists; cuDNN trusts its lengths.
attnmux_code write_cudnn_lengths(const Problem& problem, int32_t* lengths_q, int32_t* lengths_kv, void* stream,
                                 attnmux_error* error);

/// Bias plus -inf wherever a dense or padding mask says no, as shape.bias_* describes it.
attnmux_code write_cudnn_bias(const Problem& problem, const CudnnShape& shape, void* bias, void* stream,
                              attnmux_error* error);

/// Could a query have no key at all, as far as lengths, causal and window tell?
bool may_have_empty_rows(const Problem& problem);
/// out = 0 and LSE = -inf for those.
attnmux_code write_empty_rows(const Problem& problem, void* stream, attnmux_error* error);

}  // namespace attnmux
