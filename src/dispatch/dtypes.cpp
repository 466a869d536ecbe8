// SPDX-License-Identifier: Apache-2.0
#include "dispatch/dtypes.h"

namespace attnmux {
namespace {

// In the order of the ATTNMUX_FP32 … constants; row 0 is "not given".
constexpr DtypeRow kDtypes[ATTNMUX_DTYPE_COUNT] = {
    {"none", 0, 0, 0}, {"fp32", 4, 2, 32}, {"fp16", 2, 2, 16},  {"bf16", 2, 4, 16}, {"fp64", 8, 2, 64},
    {"bool", 1, 6, 8}, {"uint8", 1, 1, 8}, {"int32", 4, 0, 32}, {"e4m3", 1, 10, 8},
};

}  // namespace

bool is_dtype(int32_t dtype) { return dtype > 0 && dtype < ATTNMUX_DTYPE_COUNT; }
const DtypeRow& dtype_row(int32_t dtype) { return kDtypes[dtype]; }
std::string_view dtype_name(int32_t dtype) {
  return dtype == 0 || is_dtype(dtype) ? kDtypes[dtype].name : std::string_view("unknown");
}

std::string dtype_list(uint32_t dtypes) {
  std::string list;
  for (int32_t dtype = 1; dtype < ATTNMUX_DTYPE_COUNT; ++dtype) {
    if ((dtypes >> dtype & 1) == 0) continue;
    if (!list.empty()) list += ", ";
    list += kDtypes[dtype].name;
  }
  return list;
}

}  // namespace attnmux
