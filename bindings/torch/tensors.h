// SPDX-License-Identifier: Apache-2.0
// PyTorch's tensors as attnmux sees them, and new ones.
#pragma once

#include <attnmux/attnmux_c.h>

#include <cstdint>
#include <span>

#include "handle.h"

namespace attnmux::torch_op {

// The tensor's memory, as it lies. `name` is for errors.
attnmux_tensor view(const char* name, const Handle& tensor);

// (B, H, S, D) as PyTorch orders a tensor, seen as (B, S, H, D).
void swap_heads_and_rows(attnmux_tensor& t);

// A copy whose last dimension has stride 1.
Handle contiguous_copy(const attnmux_tensor& like, const Handle& tensor);

// A new tensor on the device of `like`, contiguous in the given order of dimensions: `order` names them from the
// slowest to the fastest.
Handle new_tensor(const attnmux_tensor& like, int32_t dtype, std::span<const int64_t> shape,
                  std::span<const int> order);

// PyTorch's number for an attnmux dtype.
int32_t torch_dtype(int32_t dtype);

}  // namespace attnmux::torch_op
