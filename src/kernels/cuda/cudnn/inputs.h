// SPDX-License-Identifier: Apache-2.0
// What cuDNN wants in another form than the contract gives it, made on the device before its graph runs, and what it
// leaves undone, after it.
#pragma once

#include "kernels/cuda/cudnn/graph.h"

namespace attnmux {

/// Fills the parts of the workspace that the shape says are made there: lengths, clamped to the keys that exist, since
/// cuDNN trusts its lengths; the padding as a bias; copies of K and V without what nobody attends to.
attnmux_code write_cudnn_inputs(const Problem& attended, const CudnnShape& shape, const CudnnGraph::Pointers& pointers,
                                void* stream, attnmux_error* error);

/// Could a query have no key at all, as far as lengths, causal and window tell?
bool may_have_empty_rows(const Problem& attended);
/// out = 0 and LSE = -inf for those.
attnmux_code write_empty_rows(const Problem& attended, void* stream, attnmux_error* error);

}  // namespace attnmux
