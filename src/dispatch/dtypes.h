// SPDX-License-Identifier: Apache-2.0
// One row per element type.
#pragma once

#include <attnmux/c/types.h>

#include <string>
#include <string_view>

namespace attnmux {

struct DtypeRow {
  std::string_view name;
  int64_t size;  // bytes
  // DLPack's DLDataType: type code and bits.
  int dlpack_code, dlpack_bits;
};

/// The row of a dtype that is_dtype() accepts.
const DtypeRow& dtype_row(int32_t dtype);
bool is_dtype(int32_t dtype);
std::string_view dtype_name(int32_t dtype);  // "fp16"; "none" for 0, "unknown" for anything else
/// "fp32, fp16, bf16" for a set of bits 1 << dtype.
std::string dtype_list(uint32_t dtypes);

}  // namespace attnmux
