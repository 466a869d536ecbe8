// SPDX-License-Identifier: Apache-2.0
// Any bytes as a .safetensors file: refused with a FileError, or read within bounds and written back to the same
// tensors.
#include <io/safetensors.h>
#include <io/safetensors_header.h>

#include <cstring>

namespace {

using namespace attnmux::io;

void require(bool promise) {
  if (!promise) __builtin_trap();
}

void check(const TensorFile& file) {
  std::vector<NamedTensor> usable;
  for (const NamedTensor& tensor : file.tensors()) {
    unsigned sum = 0;
    for (size_t i = 0; i < tensor.bytes; ++i) sum += static_cast<unsigned>(tensor.data[i]);
    require(sum <= 255 * tensor.bytes);
    require(tensor.shape.size() <= kMaxRank && file.find(tensor.name) == &tensor);
    if (tensor.dtype == 0) continue;
    const size_t item = dtype_size(tensor.dtype);
    require(static_cast<size_t>(tensor.num_elements()) * item == tensor.bytes);
    require(reinterpret_cast<uintptr_t>(tensor.data) % item == 0);
    usable.push_back(tensor);
  }
  const TensorFile again = parse_safetensors(format_safetensors(usable, file.metadata(), "again"), "again");
  require(again.tensors().size() == usable.size() && again.metadata() == file.metadata());
  for (const NamedTensor& tensor : usable) {
    const NamedTensor& copy = again.at(tensor.name);
    require(copy.dtype == tensor.dtype && copy.shape == tensor.shape && copy.bytes == tensor.bytes);
    require(tensor.bytes == 0 || std::memcmp(copy.data, tensor.data, tensor.bytes) == 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    check(parse_safetensors(bytes, "input"));
  } catch (const FileError&) {
  }
  // The header alone, which needs no matching length in front of it.
  try {
    (void)parse_safetensors_header({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const FileError&) {
  }
  return 0;
}
