// SPDX-License-Identifier: Apache-2.0
// One call of attnmux from an operator.
#pragma once

#include <attnmux/attnmux_c.h>

#include <cstdint>

namespace attnmux::torch_op {

// Options of a call whose backend Python resolved, so that no C++ scope or default takes part.
attnmux_options options_for(int64_t backend);

// Runs on PyTorch's current stream or with PyTorch's number of threads; throws what the library refuses.
void run(const attnmux_tensor& q, const attnmux_tensor& k, const attnmux_tensor& v, const attnmux_tensor& out,
         const attnmux_options& options);

}  // namespace attnmux::torch_op
