// SPDX-License-Identifier: Apache-2.0
#include <io/safetensors_header.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

namespace attnmux::io {

namespace {

using Json = nlohmann::json;

constexpr SafetensorsDtype kDtypes[] = {
    {"BOOL", 8, ATTNMUX_BOOL},
    {"F4", 4, 0},
    {"F6_E2M3", 6, 0},
    {"F6_E3M2", 6, 0},
    {"U8", 8, ATTNMUX_UINT8},
    {"I8", 8, 0},
    {"F8_E5M2", 8, 0},
    {"F8_E4M3", 8, 0},
    {"F8_E8M0", 8, 0},
    {"F8_E4M3FNUZ", 8, 0},
    {"F8_E5M2FNUZ", 8, 0},
    {"I16", 16, 0},
    {"U16", 16, 0},
    {"F16", 16, ATTNMUX_FP16},
    {"BF16", 16, ATTNMUX_BF16},
    {"I32", 32, ATTNMUX_INT32},
    {"U32", 32, 0},
    {"F32", 32, ATTNMUX_FP32},
    {"C64", 64, 0},
    {"F64", 64, ATTNMUX_FP64},
    {"I64", 64, 0},
    {"U64", 64, 0},
};

/// Reads the header as a stream of events: no tree is built, so that a hostile header costs no more memory than it is
/// long, a name given twice is seen, and nesting is refused where it starts.
class HeaderReader : public Json::json_sax_t {
 public:
  explicit HeaderReader(const std::string& file) : file_(file) {}
  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(size_t) override {
    if (where_ == Where::kOutside) return go(Where::kRoot);
    if (where_ == Where::kName) {
      if (key_ == "__metadata__") return go(Where::kMetadata);
      header_.entries.push_back({key_, nullptr, {}, 0, 0});
      seen_ = 0;
      return go(Where::kEntry);
    }
    return unexpected("an object");
  }

  bool key(std::string& key) override {
    key_ = key;
    switch (where_) {
      case Where::kRoot:
        if (!names_.insert(key).second) fail("the name " + in_quotes(key) + " is given twice");
        return go(Where::kName);
      case Where::kMetadata:
        if (header_.metadata.contains(key)) fail("__metadata__ gives " + in_quotes(key) + " twice");
        return go(Where::kMetadataValue);
      default:
        return field(key);
    }
  }

  bool end_object() override {
    if (where_ == Where::kEntry) {
      for (unsigned i = 0; i < std::size(kFields); ++i) {
        if ((seen_ >> i & 1) == 0) fail(tensor() + " has no field " + std::string(kFields[i].name));
      }
    }
    return go(where_ == Where::kRoot ? Where::kOutside : Where::kRoot);
  }

  bool start_array(size_t) override {
    if (where_ == Where::kShapeValue) return go(Where::kShape);
    if (where_ == Where::kOffsetsValue) return go(Where::kOffsets);
    return unexpected("an array");
  }

  bool end_array() override {
    if (where_ == Where::kOffsets && offsets_ != 2) {
      fail(tensor() + ": data_offsets holds " + std::to_string(offsets_) + " numbers; accepted are 2");
    }
    return go(Where::kEntry);
  }

  bool string(std::string& value) override {
    if (where_ == Where::kMetadataValue) {
      header_.metadata.emplace(key_, value);
      return go(Where::kMetadata);
    }
    if (where_ != Where::kDtypeValue) return unexpected("the text " + in_quotes(value));
    const auto* row =
        std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const auto& r) { return r.name == value; });
    if (row == std::end(kDtypes))
      fail(tensor() + ": unknown dtype " + in_quotes(value) + "; known are " + known_dtypes());
    entry().dtype = row;
    return go(Where::kEntry);
  }

  bool number_unsigned(uint64_t value) override {
    if (where_ == Where::kShape) {
      if (value > static_cast<uint64_t>(INT64_MAX)) return unexpected("the number " + std::to_string(value));
      if (entry().shape.size() == kMaxRank) fail(tensor() + ": shape has more than 8 dimensions");
      entry().shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (where_ != Where::kOffsets) return unexpected("the number " + std::to_string(value));
    if (offsets_ == 0) entry().begin = value;
    if (offsets_ == 1) entry().end = value;
    ++offsets_;
    return true;
  }

  bool number_integer(int64_t value) override { return unexpected("the number " + std::to_string(value)); }
  bool number_float(double, const std::string& text) override { return unexpected("the number " + in_quotes(text)); }
  bool boolean(bool value) override { return unexpected(value ? "true" : "false"); }
  bool null() override { return unexpected("null"); }
  bool binary(Json::binary_t&) override { return unexpected("binary data"); }
  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    std::string_view reason = error.what();
    const size_t detail = reason.find(": ");  // what comes before tells the position in lines
    if (detail != std::string_view::npos) reason.remove_prefix(detail + 2);
    fail("not valid JSON at byte " + std::to_string(position) + ": " + in_quotes(reason));
  }

 private:
  enum class Where {
    kOutside,
    kRoot,
    kName,
    kMetadata,
    kMetadataValue,
    kEntry,
    kDtypeValue,
    kShapeValue,
    kShape,
    kOffsetsValue,
    kOffsets,
  };
  struct Field {
    std::string_view name;
    Where where;
  };
  static constexpr Field kFields[] = {
      {"dtype", Where::kDtypeValue}, {"shape", Where::kShapeValue}, {"data_offsets", Where::kOffsetsValue}};

  static const char* wanted(Where where) {
    switch (where) {
      case Where::kOutside:
        return "the header has to be an object";
      case Where::kName:
        return "a tensor has to be an object with dtype, shape and data_offsets";
      case Where::kMetadataValue:
        return "__metadata__ may hold nothing but text";
      case Where::kDtypeValue:
        return "dtype has to be text";
      case Where::kShapeValue:
      case Where::kShape:
        return "shape has to be an array of whole numbers from 0 to 2^63-1";
      case Where::kOffsetsValue:
      case Where::kOffsets:
        return "data_offsets has to be an array of two whole numbers from 0 to 2^64-1";
      default:
        return "a name has to come here";
    }
  }

  bool field(const std::string& name) {
    for (unsigned i = 0; i < std::size(kFields); ++i) {
      if (kFields[i].name != name) continue;
      if ((seen_ >> i & 1) != 0) fail(tensor() + " gives " + name + " twice");
      seen_ |= 1U << i;
      offsets_ = 0;
      return go(kFields[i].where);
    }
    fail(tensor() + " has an unknown field " + in_quotes(name) + "; accepted are dtype, shape and data_offsets");
  }

  static std::string known_dtypes() {
    std::string text;
    for (const auto& row : kDtypes) text += (text.empty() ? "" : ", ") + std::string(row.name);
    return text;
  }

  bool go(Where where) {
    where_ = where;
    return true;
  }
  HeaderEntry& entry() { return header_.entries.back(); }
  std::string tensor() { return "tensor " + in_quotes(entry().name); }
  bool unexpected(const std::string& what) {
    const bool in_tensor = where_ >= Where::kEntry;
    fail((in_tensor                ? tensor() + ": "
          : where_ == Where::kName ? in_quotes(key_) + ": "
                                   : "") +
         wanted(where_) + ", not " + what);
  }
  [[noreturn]] void fail(const std::string& problem) { throw FileError(file_, "safetensors header: " + problem); }

  const std::string& file_;
  SafetensorsHeader header_;
  std::unordered_set<std::string> names_;
  std::string key_;
  Where where_ = Where::kOutside;
  unsigned seen_ = 0;     // bit i: kFields[i] of the current entry
  unsigned offsets_ = 0;  // numbers read of its data_offsets
};

}  // namespace

std::span<const SafetensorsDtype> safetensors_dtypes() { return kDtypes; }

SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& file) {
  // The JSON parser takes a zero byte for the end of its input and would not look at what follows.
  const size_t zero = json.find('\0');
  if (zero != std::string_view::npos) {
    throw FileError(file, "safetensors header: byte " + std::to_string(zero) + " is zero; accepted is JSON text");
  }
  if (json.empty() || json[0] != '{') throw FileError(file, "safetensors header: does not start with {");
  HeaderReader reader(file);
  Json::sax_parse(json.begin(), json.end(), &reader);
  return reader.take();
}

}  // namespace attnmux::io
