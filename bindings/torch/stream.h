// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace attnmux::torch_op {

// PyTorch's current stream of a CUDA device, as attnmux names streams.
void* current_stream(int32_t device);

}  // namespace attnmux::torch_op
