// SPDX-License-Identifier: Apache-2.0
// cpu_flash_amx on a machine without AMX: the same algorithm on tiles that are arrays. It is registered as the backend
// "model.amx" before any test looks at the table, so that all of the suite runs on it.
#pragma once

#include "kernels/kernel.h"

namespace attnmux::test {

// Needs AVX-512 BF16.
attnmux_code run_flash_on_tile_model(const Problem* p, const RunContext* context, attnmux_error* error);

}  // namespace attnmux::test
