// SPDX-License-Identifier: Apache-2.0
// Stores of matrices whose layout is that of products, sm90 and newer. PTX ISA, "Warp-level matrix store instruction:
// stmatrix".
#pragma once

#include <cstdint>

namespace attnmux::ptx {
namespace {

// Four 8×8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8, and of each matrix the
// elements 2(l % 4) and the next of row l / 4.
__device__ inline void stmatrix_x4(uint32_t shared_address, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address), "r"(r[0]),
               "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}

}  // namespace
}  // namespace attnmux::ptx
