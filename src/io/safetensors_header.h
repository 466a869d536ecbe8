// SPDX-License-Identifier: Apache-2.0
// The JSON header of a .safetensors file, as it is written there: names, dtypes, shapes and offsets, not yet held
// against the file's size.
#pragma once

#include <io/tensor_file.h>

namespace attnmux::io {

/// A dtype of the format. Those that attnmux does not compute with can be listed, but not used.
struct SafetensorsDtype {
  std::string_view name;
  uint32_t bits;
  int32_t dtype;  // ATTNMUX_…, or 0
};
/// In the order in which the reference implementation lays tensors out, last first.
std::span<const SafetensorsDtype> safetensors_dtypes();

struct HeaderEntry {
  std::string name;
  const SafetensorsDtype* dtype = nullptr;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes, from the end of the header
};

struct SafetensorsHeader {
  std::vector<HeaderEntry> entries;
  std::map<std::string, std::string> metadata;
};

/// Throws FileError for anything but a header of this format; names given twice and unknown fields included.
SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& file);

}  // namespace attnmux::io
