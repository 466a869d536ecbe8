// SPDX-License-Identifier: Apache-2.0
// The .npy format, versions 1.0, 2.0 and 3.0: "\x93NUMPY", version, header length, a Python dict as text, the array.
//
//     {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
#pragma once

#include <io/tensor_file.h>

namespace attnmux::io {

/// The array of a file, named after it; its dtype may be one that can only be listed. Arrays in Fortran order are
/// brought into C order.
NamedTensor load_npy(const std::string& path);
/// The same from memory; `file` is the name for messages.
NamedTensor parse_npy(std::span<const std::byte> bytes, const std::string& file);

/// Bytes of a file, the same that numpy writes. There is no bfloat16 in numpy: use .safetensors for it.
std::vector<std::byte> format_npy(const NamedTensor& tensor, const std::string& file);
void save_npy(const std::string& path, const NamedTensor& tensor);

}  // namespace attnmux::io
