// SPDX-License-Identifier: Apache-2.0
// The .safetensors format: 8 bytes of header length (little-endian), a JSON header, the tensors' bytes.
//
//     {"__metadata__": {"text": "text"}, "q": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
//
// Everything that a header claims is checked before it is used: data_offsets lie within the file, hold exactly what
// dtype and shape need, and cover every byte once.
#pragma once

#include <io/tensor_file.h>

namespace attnmux::io {

/// Longest header that is accepted, as in the reference implementation.
inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

TensorFile load_safetensors(const std::string& path);
/// The same from memory; `file` is the name for messages.
TensorFile parse_safetensors(std::span<const std::byte> bytes, const std::string& file);

using Metadata = std::map<std::string, std::string>;
/// Bytes of a file: always the same for the same tensors, in the order of the reference implementation (wide dtypes
/// first, then by name), so that every tensor is aligned.
std::vector<std::byte> format_safetensors(std::span<const NamedTensor> tensors, const Metadata& metadata,
                                          const std::string& file);
void save_safetensors(const std::string& path, std::span<const NamedTensor> tensors, const Metadata& metadata = {});

}  // namespace attnmux::io
