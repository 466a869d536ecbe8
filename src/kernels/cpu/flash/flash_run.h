// SPDX-License-Identifier: Apache-2.0
// What each instruction set's file exports: the algorithm, compiled for it.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

attnmux_code run_flash_baseline(const Problem* p, const RunContext* context, attnmux_error* error);
attnmux_code run_flash_avx2(const Problem* p, const RunContext* context, attnmux_error* error);
attnmux_code run_flash_avx512(const Problem* p, const RunContext* context, attnmux_error* error);
attnmux_code run_flash_avx512_bf16(const Problem* p, const RunContext* context, attnmux_error* error);
attnmux_code run_flash_amx(const Problem* p, const RunContext* context, attnmux_error* error);

}  // namespace attnmux
