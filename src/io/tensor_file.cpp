// SPDX-License-Identifier: Apache-2.0
#include <io/npy.h>
#include <io/safetensors.h>
#include <io/tensor_file.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <system_error>
#include <utility>

namespace attnmux::io {

static_assert(std::endian::native == std::endian::little, "both formats are read as they lie in memory");

namespace {

constexpr std::align_val_t kAlignment{64};

std::string error_text(int error) { return std::generic_category().message(error); }

bool has_suffix(const std::string& path, std::string_view suffix) { return std::string_view(path).ends_with(suffix); }

struct DtypeRow {
  int32_t dtype;
  size_t size;
  std::string_view text;
};
constexpr DtypeRow kDtypes[] = {
    {ATTNMUX_FP64, 8, "F64"},  {ATTNMUX_FP32, 4, "F32"}, {ATTNMUX_FP16, 2, "F16"},  {ATTNMUX_BF16, 2, "BF16"},
    {ATTNMUX_BOOL, 1, "BOOL"}, {ATTNMUX_UINT8, 1, "U8"}, {ATTNMUX_INT32, 4, "I32"},
};

const DtypeRow* find_dtype(int32_t dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.dtype == dtype) return &row;
  }
  return nullptr;
}

[[noreturn]] void throw_unknown_suffix(const std::string& path) {
  throw FileError(path, "unknown kind of file: accepted are names that end in .safetensors or .npy");
}

}  // namespace

std::shared_ptr<std::byte> allocate_aligned(size_t size) {
  auto* data = static_cast<std::byte*>(::operator new(size, kAlignment));
  return {data, [](std::byte* p) { ::operator delete(p, kAlignment); }};
}

Buffer copy_to_buffer(std::span<const std::byte> bytes) {
  auto data = allocate_aligned(bytes.size());
  if (!bytes.empty()) std::memcpy(data.get(), bytes.data(), bytes.size());
  return {std::move(data), bytes.size()};
}

Buffer read_file(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) throw FileError(path, "no such file");
  if (!fs::is_regular_file(status)) throw FileError(path, "not a regular file");
  const uintmax_t size = fs::file_size(path, error);
  if (error) throw FileError(path, "cannot be read: " + error.message());

  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw FileError(path, "cannot be opened: " + error_text(errno));
  std::shared_ptr<std::byte> data;
  try {
    data = allocate_aligned(static_cast<size_t>(size));
  } catch (const std::bad_alloc&) {
    throw FileError(path, "needs " + std::to_string(size) + " bytes of memory, more than there are");
  }
  stream.read(reinterpret_cast<char*>(data.get()), static_cast<std::streamsize>(size));
  if (static_cast<uintmax_t>(stream.gcount()) != size) {
    throw FileError(path,
                    "could be read up to byte " + std::to_string(stream.gcount()) + " of " + std::to_string(size));
  }
  return {std::move(data), static_cast<size_t>(size)};
}

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  errno = 0;
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  if (!stream) throw FileError(path, "cannot be opened for writing: " + error_text(errno));
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  stream.close();
  if (!stream) {
    throw FileError(path, "writing " + std::to_string(bytes.size()) + " bytes failed: " + error_text(errno));
  }
}

int64_t NamedTensor::num_elements() const { return count_elements(shape).value_or(0); }

TensorView NamedTensor::view() const {
  if (shape.size() > 4) {
    throw FileError(in_quotes(name), "has " + std::to_string(shape.size()) + " dimensions, shape " + shape_text(shape) +
                                         "; at most 4 are accepted here");
  }
  return TensorView(data, static_cast<Dtype>(dtype), detail::Extents(std::span<const int64_t>(shape)));
}

void NamedTensor::require_dtype(int32_t expected) const {
  if (dtype == expected) return;
  throw FileError(in_quotes(name), "dtype is " + (dtype == 0 ? file_dtype : std::string(dtype_text(dtype))) +
                                       "; accepted is " + std::string(dtype_text(expected)));
}

NamedTensor borrow_tensor(std::string name, int32_t dtype, std::vector<int64_t> shape, const void* data) {
  NamedTensor tensor;
  const auto count = count_elements(shape);
  const auto item = static_cast<int64_t>(dtype_size(dtype));
  if (item == 0)
    throw FileError(in_quotes(name), "dtype number " + std::to_string(dtype) + " cannot be written to a file");
  if (!count || *count > INT64_MAX / item)
    throw FileError(in_quotes(name), "shape " + shape_text(shape) + " has no size");
  tensor.name = std::move(name);
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.data = static_cast<const std::byte*>(data);
  tensor.bytes = static_cast<size_t>(*count * item);
  return tensor;
}

TensorFile::TensorFile(std::string path, std::vector<NamedTensor> tensors, std::map<std::string, std::string> metadata)
    : path_(std::move(path)), tensors_(std::move(tensors)), metadata_(std::move(metadata)) {
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
}

const NamedTensor* TensorFile::find(std::string_view name) const {
  const auto at = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const NamedTensor& tensor, std::string_view n) { return tensor.name < n; });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

const NamedTensor& TensorFile::at(std::string_view name) const {
  const NamedTensor* tensor = find(name);
  if (tensor == nullptr) {
    constexpr size_t kListed = 20;
    std::string there;
    for (size_t i = 0; i < tensors_.size() && i < kListed; ++i) {
      there += (i == 0 ? "" : ", ") + in_quotes(tensors_[i].name);
    }
    if (tensors_.size() > kListed) there += ", and " + std::to_string(tensors_.size() - kListed) + " more";
    throw FileError(path_, "has no tensor " + in_quotes(name) + "; it has " + (there.empty() ? "none" : there));
  }
  if (tensor->dtype == 0) {
    throw FileError(path_, "tensor " + in_quotes(name) + " has dtype " + tensor->file_dtype +
                               "; accepted are F64, F32, F16, BF16, BOOL, U8 and I32");
  }
  return *tensor;
}

TensorFile load_tensor_file(const std::string& path) {
  if (has_suffix(path, ".safetensors")) return load_safetensors(path);
  if (!has_suffix(path, ".npy")) throw_unknown_suffix(path);
  std::vector<NamedTensor> tensors{load_npy(path)};
  return TensorFile(path, std::move(tensors));
}

void save_tensor_file(const std::string& path, std::span<const NamedTensor> tensors) {
  if (has_suffix(path, ".safetensors")) return save_safetensors(path, tensors);
  if (!has_suffix(path, ".npy")) throw_unknown_suffix(path);
  if (tensors.size() != 1) {
    throw FileError(path, "an .npy file holds one tensor, not " + std::to_string(tensors.size()) +
                              "; a name that ends in .safetensors takes any number");
  }
  save_npy(path, tensors[0]);
}

size_t dtype_size(int32_t dtype) {
  const auto* row = find_dtype(dtype);
  return row == nullptr ? 0 : row->size;
}

std::string_view dtype_text(int32_t dtype) {
  const auto* row = find_dtype(dtype);
  return row == nullptr ? "?" : row->text;
}

std::optional<int64_t> count_elements(std::span<const int64_t> shape) {
  if (std::any_of(shape.begin(), shape.end(), [](int64_t extent) { return extent < 0; })) return std::nullopt;
  // An extent of zero makes the product zero whatever the others are, so that their order does not matter.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t count = 1;
  for (const int64_t extent : shape) {
    if (count > INT64_MAX / extent) return std::nullopt;
    count *= extent;
  }
  return count;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kLongest = 80;
  size_t end = std::min(text.size(), kLongest);
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    --end;  // whole characters
  std::string result = "\"";
  for (const char c : text.substr(0, end)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\x%02x", byte);
      result += escape;
    } else {
      if (c == '"' || c == '\\') result += '\\';
      result += c;
    }
  }
  return result + (end < text.size() ? "…\"" : "\"");
}

}  // namespace attnmux::io
