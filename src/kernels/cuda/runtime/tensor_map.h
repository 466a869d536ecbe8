// SPDX-License-Identifier: Apache-2.0
// Descriptors with which the tensor memory accelerator finds a box in a tensor.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

/// The driver's opaque CUtensorMap; a kernel takes it as part of a __grid_constant__ parameter.
struct alignas(128) TensorMap {
  uint64_t opaque[16];
};

/// Can boxes of this (B, S, H, D) tensor of 8 or 16-bit elements be copied? Rows at multiples of 16 bytes, strides that
/// do not go backwards. Says why not of the tensor `name`.
int32_t tensor_map_takes(const char* name, const Tensor& tensor, Reason* reason);

/// Boxes of `row_bytes` (128 or 64) of columns and `rows` rows, innermost coordinates (column, row, head, batch).
/// Columns and rows outside of the tensor read as zero; the 16-byte pieces of a row are swizzled in shared memory.
/// Coordinates of a dimension with stride 0 must be 0.
attnmux_code encode_tensor_map(const Tensor& tensor, uint32_t rows, TensorMap& map, attnmux_error* error,
                               uint32_t row_bytes = 128);

/// The same with the rows of `heads` neighbouring heads in turn: boxes of `heads` times `rows` rows, innermost
/// coordinates (column, head, row, batch). Needs a stride from head to head.
attnmux_code encode_packed_map(const Tensor& tensor, uint32_t heads, uint32_t rows, TensorMap& map,
                               attnmux_error* error);

/// The same of a (B, H, Sq, Skv) bias of 16-bit or 32-bit elements: boxes of 128 bytes of keys and `rows` queries,
/// innermost coordinates (key, query, head, batch).
bool bias_map_takes(const Tensor& t);
attnmux_code encode_bias_map(const Tensor& bias, uint32_t rows, TensorMap& map, attnmux_error* error);

}  // namespace attnmux
