// SPDX-License-Identifier: Apache-2.0
#include <io/safetensors.h>
#include <io/safetensors_header.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

namespace attnmux::io {

namespace {

constexpr size_t kLengthBytes = 8;

std::string tensor_text(const HeaderEntry& entry) { return "tensor " + in_quotes(entry.name); }

std::string offsets_text(const HeaderEntry& entry) {
  return "data_offsets [" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + "]";
}

/// Bytes that a shape needs; nothing where that is too large, or no whole number of bytes.
std::optional<uint64_t> bytes_needed(const HeaderEntry& entry) {
  const auto count = count_elements(entry.shape);
  if (!count || *count > INT64_MAX / entry.dtype->bits) return std::nullopt;
  const uint64_t bits = static_cast<uint64_t>(*count) * entry.dtype->bits;
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

/// Holds the header's claims against the bytes that there are, and sorts its entries by position.
void check_layout(std::vector<HeaderEntry>& entries, uint64_t data_bytes, const std::string& file) {
  for (const HeaderEntry& entry : entries) {
    if (entry.begin > entry.end || entry.end > data_bytes) {
      throw FileError(file, tensor_text(entry) + ": " + offsets_text(entry) +
                                " must rise and lie within the file's data of " + std::to_string(data_bytes) +
                                " bytes");
    }
    const std::string what = std::string(entry.dtype->name) + " of shape " + shape_text(entry.shape);
    const auto needed = bytes_needed(entry);
    if (!needed) throw FileError(file, tensor_text(entry) + ": " + what + " is too large, or no whole number of bytes");
    if (*needed != entry.end - entry.begin) {
      throw FileError(file, tensor_text(entry) + ": " + offsets_text(entry) + " hold " +
                                std::to_string(entry.end - entry.begin) + " bytes, but " + what + " needs " +
                                std::to_string(*needed));
    }
  }
  std::sort(entries.begin(), entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t covered = 0;
  for (const HeaderEntry& entry : entries) {
    if (entry.begin < covered) {
      throw FileError(file, tensor_text(entry) + ": " + offsets_text(entry) +
                                " overlap the tensor before, which ends at " + std::to_string(covered));
    }
    if (entry.begin > covered) {
      throw FileError(file, tensor_text(entry) + ": " + offsets_text(entry) + " leave a hole: bytes " +
                                std::to_string(covered) + " to " + std::to_string(entry.begin) +
                                " belong to no tensor");
    }
    covered = entry.end;
  }
  if (covered != data_bytes) {
    throw FileError(file, "the last " + std::to_string(data_bytes - covered) + " of " + std::to_string(data_bytes) +
                              " bytes of data belong to no tensor");
  }
}

TensorFile parse(const Buffer& buffer, const std::string& file) {
  if (buffer.size < kLengthBytes) {
    throw FileError(file, "is " + std::to_string(buffer.size) +
                              " bytes long; a .safetensors file starts with 8 bytes of " + "header length");
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, buffer.data.get(), kLengthBytes);
  if (header_bytes > kMaxSafetensorsHeader) {
    throw FileError(file, "header length is " + std::to_string(header_bytes) + " bytes; accepted are at most " +
                              std::to_string(kMaxSafetensorsHeader) + ". Is it a .safetensors file?");
  }
  if (header_bytes > buffer.size - kLengthBytes) {
    throw FileError(file, "header length is " + std::to_string(header_bytes) + " bytes, but only " +
                              std::to_string(buffer.size - kLengthBytes) + " follow: the file is cut short");
  }
  const auto* text = reinterpret_cast<const char*>(buffer.data.get() + kLengthBytes);
  SafetensorsHeader header = parse_safetensors_header({text, static_cast<size_t>(header_bytes)}, file);

  const std::byte* data = buffer.data.get() + kLengthBytes + header_bytes;
  check_layout(header.entries, buffer.size - kLengthBytes - header_bytes, file);

  std::vector<NamedTensor> tensors;
  tensors.reserve(header.entries.size());
  for (HeaderEntry& entry : header.entries) {
    NamedTensor tensor;
    tensor.name = std::move(entry.name);
    tensor.dtype = entry.dtype->dtype;
    tensor.file_dtype = entry.dtype->name;
    tensor.shape = std::move(entry.shape);
    tensor.data = data + entry.begin;
    tensor.bytes = static_cast<size_t>(entry.end - entry.begin);
    tensor.owner = buffer.data;
    const size_t item = dtype_size(tensor.dtype);
    if (item != 0 && reinterpret_cast<uintptr_t>(tensor.data) % item != 0) {
      const Buffer copy = copy_to_buffer({tensor.data, tensor.bytes});
      tensor.data = copy.data.get();
      tensor.owner = copy.data;
    }
    tensors.push_back(std::move(tensor));
  }
  return TensorFile(file, std::move(tensors), std::move(header.metadata));
}

const SafetensorsDtype* find_dtype(int32_t dtype) {
  for (const SafetensorsDtype& row : safetensors_dtypes()) {
    if (row.dtype == dtype && dtype != 0) return &row;
  }
  return nullptr;
}

}  // namespace

TensorFile load_safetensors(const std::string& path) { return parse(read_file(path), path); }

TensorFile parse_safetensors(std::span<const std::byte> bytes, const std::string& file) {
  return parse(copy_to_buffer(bytes), file);
}

std::vector<std::byte> format_safetensors(std::span<const NamedTensor> tensors, const Metadata& metadata,
                                          const std::string& file) {
  struct Item {
    const NamedTensor* tensor;
    const SafetensorsDtype* dtype;
  };
  std::vector<Item> items;
  std::set<std::string_view> names;
  for (const NamedTensor& tensor : tensors) {
    const SafetensorsDtype* dtype = find_dtype(tensor.dtype);
    const auto count = count_elements(tensor.shape);
    if (dtype == nullptr)
      throw FileError(file, "tensor " + in_quotes(tensor.name) + " has a dtype that cannot be written");
    if (tensor.shape.size() > kMaxRank || !count || *count > INT64_MAX / 8 ||
        static_cast<size_t>(*count) * dtype_size(tensor.dtype) != tensor.bytes) {
      throw FileError(file, "tensor " + in_quotes(tensor.name) + ": shape " + shape_text(tensor.shape) +
                                " does not fit " + std::to_string(tensor.bytes) + " bytes of " +
                                std::string(dtype->name));
    }
    if (tensor.name == "__metadata__" || !names.insert(tensor.name).second) {
      throw FileError(file, "the tensor name " + in_quotes(tensor.name) + " is " +
                                (tensor.name == "__metadata__" ? "reserved" : "given twice"));
    }
    items.push_back({&tensor, dtype});
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.tensor->name < b.tensor->name;
  });

  std::string text;
  uint64_t offset = 0;
  try {
    const auto json_text = [](std::string_view t) { return nlohmann::json(t).dump(); };
    if (!metadata.empty()) text += ",\"__metadata__\":" + nlohmann::json(metadata).dump();
    for (const Item& item : items) {
      const nlohmann::json shape = item.tensor->shape;
      text += "," + json_text(item.tensor->name) + ":{\"dtype\":" + json_text(item.dtype->name) +
              ",\"shape\":" + shape.dump() + ",\"data_offsets\":[" + std::to_string(offset) + "," +
              std::to_string(offset + item.tensor->bytes) + "]}";
      offset += item.tensor->bytes;
    }
  } catch (const nlohmann::json::type_error&) {
    throw FileError(file, "a tensor name or metadata text is not valid UTF-8");
  }
  text = "{" + (text.empty() ? text : text.substr(1)) + "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxSafetensorsHeader) {
    throw FileError(file, "the header would be " + std::to_string(text.size()) + " bytes long; accepted are at most " +
                              std::to_string(kMaxSafetensorsHeader));
  }

  std::vector<std::byte> bytes(kLengthBytes + text.size() + offset);
  const uint64_t header_bytes = text.size();
  std::memcpy(bytes.data(), &header_bytes, kLengthBytes);
  std::memcpy(bytes.data() + kLengthBytes, text.data(), text.size());
  std::byte* out = bytes.data() + kLengthBytes + text.size();
  for (const Item& item : items) {
    if (item.tensor->bytes != 0) std::memcpy(out, item.tensor->data, item.tensor->bytes);
    out += item.tensor->bytes;
  }
  return bytes;
}

void save_safetensors(const std::string& path, std::span<const NamedTensor> tensors, const Metadata& metadata) {
  write_file(path, format_safetensors(tensors, metadata, path));
}

}  // namespace attnmux::io
