// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace attnmux::test {

constexpr int kAmxTileFloats = 256;

// sum += left · right, repeated; tiles of 16 rows of 16 floats, bf16 pairs in those of the factors. Rows lie `stride`
// floats apart. The first needs AMX, the second AVX-512 BF16.
void multiply_on_amx(const float* left, const float* right, float* sum, int stride, int repeats);
void multiply_on_amx_model(const float* left, const float* right, float* sum, int stride, int repeats);

}  // namespace attnmux::test
