// SPDX-License-Identifier: Apache-2.0
// The header of an .npy file: a Python dict literal with the keys descr, fortran_order and shape.
#pragma once

#include <io/tensor_file.h>

namespace attnmux::io {

struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

/// Reads what numpy writes and nothing else that Python would: text, True, False and tuples of whole numbers. Throws
/// FileError.
NpyHeader parse_npy_header(std::string_view text, const std::string& file);

}  // namespace attnmux::io
