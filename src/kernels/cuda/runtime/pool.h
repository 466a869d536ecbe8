// SPDX-License-Identifier: Apache-2.0
// One stream-ordered memory pool per device, for the workspaces of callers who bring none. The device's default pool
// gives memory back to the driver whenever somebody waits for a stream, and takes it again in the next call, which
// costs more than most kernels; this one keeps what its largest call needed.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

/// `bytes` for work on `stream`, which is a stream of `device`; cudaFreeAsync gives them back.
attnmux_code allocate_from_pool(int32_t device, size_t bytes, void* stream, void** data, attnmux_error* error);

/// Gives what no call is using back to the driver.
void trim_pools();

}  // namespace attnmux
