// SPDX-License-Identifier: Apache-2.0
// Tensors in files: what the readers and writers of .safetensors and .npy share. For the command line tool, the
// examples and the tests; not installed.
#pragma once

#include <attnmux/tensor.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux::io {

/// The message names the file, what is wrong with it, the value found and what is accepted.
class FileError : public std::runtime_error {
 public:
  FileError(std::string_view file, std::string_view problem)
      : std::runtime_error(std::string(file) + ": " + std::string(problem)) {}
};

inline constexpr size_t kMaxRank = 8;

/// Memory that starts at a multiple of 64 bytes and lives as long as something views it.
struct Buffer {
  std::shared_ptr<const std::byte> data;
  size_t size = 0;
  std::span<const std::byte> span() const { return {data.get(), size}; }
};
/// Throws std::bad_alloc.
std::shared_ptr<std::byte> allocate_aligned(size_t size);
Buffer copy_to_buffer(std::span<const std::byte> bytes);
/// A whole regular file. Read, not mapped: a mapped file that another program shortens ends in SIGBUS.
Buffer read_file(const std::string& path);
void write_file(const std::string& path, std::span<const std::byte> bytes);

/// One tensor: contiguous, last dimension fastest, little-endian, aligned for its dtype.
class NamedTensor {
 public:
  std::string name;
  int32_t dtype = 0;       ///< ATTNMUX_FP32 …; 0: attnmux computes with no such dtype, only file_dtype tells
  std::string file_dtype;  ///< as the file spells it: "F32", "I64", "<f4"
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  std::shared_ptr<const void> owner;  ///< keeps data alive; empty where the caller does

  int64_t num_elements() const;
  /// For the verbs, which take at most four dimensions; throws FileError for more.
  TensorView view() const;
  /// The elements as float, double, bool, uint8_t or int32_t; throws FileError where the dtype is another.
  template <Element T>
  std::span<const T> values() const {
    require_dtype(static_cast<int32_t>(DtypeOf<T>::value));
    return {reinterpret_cast<const T*>(data), bytes / sizeof(T)};
  }

 private:
  void require_dtype(int32_t expected) const;
};

/// A tensor to be written, over memory of the caller, who keeps it alive until then.
NamedTensor borrow_tensor(std::string name, int32_t dtype, std::vector<int64_t> shape, const void* data);

/// The tensors of a file, sorted by name.
class TensorFile {
 public:
  TensorFile(std::string path, std::vector<NamedTensor> tensors, std::map<std::string, std::string> metadata = {});

  const std::string& path() const { return path_; }
  const std::vector<NamedTensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Null if there is none.
  const NamedTensor* find(std::string_view name) const;
  /// Throws FileError if there is none, or if attnmux computes with no such dtype.
  const NamedTensor& at(std::string_view name) const;

 private:
  std::string path_;
  std::vector<NamedTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// .safetensors or .npy, by suffix. The tensor of an .npy file is named after the file: "q" in dir/q.npy.
TensorFile load_tensor_file(const std::string& path);
/// .safetensors, or .npy for a single tensor.
void save_tensor_file(const std::string& path, std::span<const NamedTensor> tensors);

/// Bytes per element of an ATTNMUX_ dtype that files can hold; 0 for others.
size_t dtype_size(int32_t dtype);
/// The spelling of the .safetensors format, "F32" or "BF16"; "?" for others.
std::string_view dtype_text(int32_t dtype);
/// Elements of a shape; nothing where an extent is negative or the product does not fit in int64_t.
std::optional<int64_t> count_elements(std::span<const int64_t> shape);
/// "(2, 3)", as numpy writes shapes.
std::string shape_text(std::span<const int64_t> shape);
/// Text from a file for a message: in quotes, control characters escaped, cut after 80 bytes.
std::string in_quotes(std::string_view text);

}  // namespace attnmux::io
