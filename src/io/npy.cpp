// SPDX-License-Identifier: Apache-2.0
#include <io/npy.h>
#include <io/npy_header.h>

#include <cstring>
#include <filesystem>
#include <utility>

namespace attnmux::io {

namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kVersionEnd = 8;  // magic, major, minor

/// A dtype of numpy. Those that attnmux does not compute with can be listed, but not used.
struct NpyDtype {
  std::string_view descr;
  size_t size;
  int32_t dtype;  // ATTNMUX_…, or 0
};
constexpr NpyDtype kDtypes[] = {
    {"<f8", 8, ATTNMUX_FP64},
    {"<f4", 4, ATTNMUX_FP32},
    {"<f2", 2, ATTNMUX_FP16},
    {"|b1", 1, ATTNMUX_BOOL},
    {"|u1", 1, ATTNMUX_UINT8},
    {"<i4", 4, ATTNMUX_INT32},
    {"|i1", 1, 0},
    {"<i2", 2, 0},
    {"<u2", 2, 0},
    {"<u4", 4, 0},
    {"<i8", 8, 0},
    {"<u8", 8, 0},
    {"<c8", 8, 0},
    {"<c16", 16, 0},
};

const NpyDtype& dtype_of(const std::string& descr, const std::string& file) {
  for (const NpyDtype& row : kDtypes) {
    if (row.descr == descr) return row;
  }
  std::string hint;
  if (descr.starts_with('>')) {
    hint = " It is big-endian: save it with array.astype(array.dtype.newbyteorder('<')).";
  } else if (descr == "<V2" || descr == "|V2" || descr == "bfloat16") {
    hint = " It looks like bfloat16, which numpy does not have: use a .safetensors file.";
  }
  throw FileError(file, "dtype " + in_quotes(descr) +
                            " is not accepted; accepted are '<f8', '<f4', '<f2', '|b1', '|u1' and '<i4'." + hint);
}

struct Layout {
  size_t header_begin, header_bytes;
};

/// Where the header lies, checked against the bytes that there are.
Layout find_header(const Buffer& buffer, const std::string& file) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(buffer.data.get());
  if (buffer.size >= 2 && std::memcmp(bytes, "PK", 2) == 0) {
    throw FileError(file, "is a zip archive, such as numpy.savez writes; accepted are arrays of numpy.save");
  }
  if (buffer.size < kVersionEnd || std::memcmp(bytes, kMagic.data(), kMagic.size()) != 0) {
    throw FileError(file, "does not start with \\x93NUMPY and a version: not an .npy file, or cut short after " +
                              std::to_string(buffer.size) + " bytes");
  }
  const unsigned major = bytes[6], minor = bytes[7];
  if (major < 1 || major > 3 || minor != 0) {
    throw FileError(file, "npy version " + std::to_string(major) + "." + std::to_string(minor) +
                              " is not accepted; accepted are 1.0, 2.0 and 3.0");
  }
  const size_t length_bytes = major == 1 ? 2 : 4;
  if (buffer.size < kVersionEnd + length_bytes) throw FileError(file, "is cut short within the header length");
  size_t header_bytes = 0;
  for (size_t i = 0; i < length_bytes; ++i) header_bytes |= static_cast<size_t>(bytes[kVersionEnd + i]) << (8 * i);
  const size_t begin = kVersionEnd + length_bytes;
  if (header_bytes > buffer.size - begin) {
    throw FileError(file, "header length is " + std::to_string(header_bytes) + " bytes, but only " +
                              std::to_string(buffer.size - begin) + " follow: the file is cut short");
  }
  return {begin, header_bytes};
}

/// Copies an array whose first dimension is fastest into one whose last is.
Buffer to_c_order(const std::byte* data, const std::vector<int64_t>& shape, size_t item, size_t bytes) {
  auto copy = allocate_aligned(bytes);
  const size_t rank = shape.size();
  std::vector<size_t> index(rank, 0), stride(rank, item);
  for (size_t d = 1; d < rank; ++d) stride[d] = stride[d - 1] * static_cast<size_t>(shape[d - 1]);
  size_t from = 0;
  for (size_t to = 0; to < bytes; to += item) {
    std::memcpy(copy.get() + to, data + from, item);
    for (size_t d = rank; d-- > 0;) {
      from += stride[d];
      if (++index[d] < static_cast<size_t>(shape[d])) break;
      from -= stride[d] * index[d];
      index[d] = 0;
    }
  }
  return {std::move(copy), bytes};
}

NamedTensor parse(const Buffer& buffer, const std::string& file) {
  const Layout layout = find_header(buffer, file);
  const auto* text = reinterpret_cast<const char*>(buffer.data.get()) + layout.header_begin;
  NpyHeader header = parse_npy_header({text, layout.header_bytes}, file);

  NamedTensor tensor;
  tensor.name = std::filesystem::path(file).stem().string();
  const NpyDtype& dtype = dtype_of(header.descr, file);
  tensor.dtype = dtype.dtype;
  tensor.file_dtype = header.descr;
  const size_t item = dtype.size;
  const auto count = count_elements(header.shape);
  const size_t there = buffer.size - layout.header_begin - layout.header_bytes;
  if (!count || static_cast<uint64_t>(*count) > UINT64_MAX / item || static_cast<uint64_t>(*count) * item != there) {
    throw FileError(file, "holds " + std::to_string(there) + " bytes of data, but " + in_quotes(header.descr) +
                              " of shape " + shape_text(header.shape) + " needs " +
                              (count ? std::to_string(*count) + " × " + std::to_string(item) : "2^63 or more"));
  }
  tensor.shape = std::move(header.shape);
  tensor.bytes = there;
  tensor.data = buffer.data.get() + layout.header_begin + layout.header_bytes;
  tensor.owner = buffer.data;

  std::optional<Buffer> copy;
  if (header.fortran_order && tensor.shape.size() > 1) {
    copy = to_c_order(tensor.data, tensor.shape, item, tensor.bytes);
  } else if (reinterpret_cast<uintptr_t>(tensor.data) % item != 0) {
    copy = copy_to_buffer({tensor.data, tensor.bytes});
  }
  if (copy) {
    tensor.data = copy->data.get();
    tensor.owner = copy->data;
  }
  return tensor;
}

}  // namespace

NamedTensor load_npy(const std::string& path) { return parse(read_file(path), path); }

NamedTensor parse_npy(std::span<const std::byte> bytes, const std::string& file) {
  return parse(copy_to_buffer(bytes), file);
}

std::vector<std::byte> format_npy(const NamedTensor& tensor, const std::string& file) {
  std::string_view descr;
  for (const NpyDtype& row : kDtypes) {
    if (row.dtype == tensor.dtype && row.dtype != 0) descr = row.descr;
  }
  if (descr.empty()) {
    throw FileError(file, "tensor " + in_quotes(tensor.name) + " has dtype " + std::string(dtype_text(tensor.dtype)) +
                              ", which .npy files do not have; a name that ends in .safetensors is accepted");
  }
  const auto count = count_elements(tensor.shape);
  if (tensor.shape.size() > kMaxRank || !count || *count > INT64_MAX / 8 ||
      static_cast<size_t>(*count) * dtype_size(tensor.dtype) != tensor.bytes) {
    throw FileError(file, "tensor " + in_quotes(tensor.name) + ": shape " + shape_text(tensor.shape) +
                              " does not fit " + std::to_string(tensor.bytes) + " bytes of " +
                              std::string(dtype_text(tensor.dtype)));
  }

  std::string header =
      "{'descr': '" + std::string(descr) + "', 'fortran_order': False, 'shape': " + shape_text(tensor.shape) + ", }";
  // numpy leaves room for the first extent to grow to 21 digits, then fills up to a multiple of 64 bytes.
  constexpr size_t kRoom = 21, kBlock = 64, kPrefix = kVersionEnd + 2;
  if (!tensor.shape.empty()) header.append(kRoom - std::to_string(tensor.shape[0]).size(), ' ');
  const size_t total = (kPrefix + header.size() + 1 + kBlock - 1) / kBlock * kBlock;
  header.append(total - kPrefix - header.size() - 1, ' ');
  header += '\n';

  std::vector<std::byte> bytes(total + tensor.bytes);
  std::string start(kMagic);
  start += {1, 0, static_cast<char>(header.size() & 0xFF), static_cast<char>(header.size() >> 8)};
  std::memcpy(bytes.data(), start.data(), start.size());
  std::memcpy(bytes.data() + kPrefix, header.data(), header.size());
  if (tensor.bytes != 0) std::memcpy(bytes.data() + total, tensor.data, tensor.bytes);
  return bytes;
}

void save_npy(const std::string& path, const NamedTensor& tensor) { write_file(path, format_npy(tensor, path)); }

}  // namespace attnmux::io
