// SPDX-License-Identifier: Apache-2.0
// Any bytes as an .npy file: refused with a FileError, or read within bounds and written back to the same array.
#include <io/npy.h>
#include <io/npy_header.h>

#include <cstring>

namespace {

using namespace attnmux::io;

void require(bool promise) {
  if (!promise) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    const NamedTensor tensor = parse_npy(bytes, "input");
    unsigned sum = 0;
    for (size_t i = 0; i < tensor.bytes; ++i) sum += static_cast<unsigned>(tensor.data[i]);
    require(sum <= 255 * tensor.bytes);
    if (tensor.dtype != 0) {
      require(static_cast<size_t>(tensor.num_elements()) * dtype_size(tensor.dtype) == tensor.bytes);
      require(reinterpret_cast<uintptr_t>(tensor.data) % dtype_size(tensor.dtype) == 0);
      const NamedTensor again = parse_npy(format_npy(tensor, "again"), "again");
      require(again.dtype == tensor.dtype && again.shape == tensor.shape && again.bytes == tensor.bytes);
      require(tensor.bytes == 0 || std::memcmp(again.data, tensor.data, tensor.bytes) == 0);
    }
  } catch (const FileError&) {
  }
  // The header alone, which needs no matching length in front of it.
  try {
    (void)parse_npy_header({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const FileError&) {
  }
  return 0;
}
