// SPDX-License-Identifier: Apache-2.0
#include "attnmux/run_files.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>

#include "attnmux/errors.h"
#include "attnmux/numbers.h"

namespace attnmux::cli {
namespace {

bool is_npy(const std::string& path) { return path.ends_with(".npy"); }

// "page.2" of page.2.q, page.2.k, page.2.v; "q, k, v" where the names share nothing.
std::string shared_name(const std::string& q, const std::string& k, const std::string& v) {
  size_t n = 0;
  while (n < q.size() && n < k.size() && n < v.size() && q[n] == k[n] && q[n] == v[n]) ++n;
  std::string prefix = q.substr(0, n);
  while (!prefix.empty() && std::strchr("._-/", prefix.back()) != nullptr) prefix.pop_back();
  return prefix.empty() ? q + ", " + k + ", " + v : prefix;
}

void require_extent(std::string_view flag, const std::optional<int64_t>& given, int64_t found) {
  if (given && *given != found) {
    throw UsageError(std::string(flag) + ": " + std::to_string(*given) + ", but the tensors have " +
                     std::to_string(found) + "; leave it out, the shapes come from the file");
  }
}

int64_t extent(const io::NamedTensor& tensor, size_t i) { return tensor.shape[i]; }

void require_rank_4(std::string_view flag, const io::NamedTensor& tensor) {
  if (tensor.shape.size() == 4) return;
  throw UsageError(std::string(flag) + ": tensor " + io::in_quotes(tensor.name) + " has shape " +
                   io::shape_text(tensor.shape) + "; it takes (batch, seqlen, heads, head_dim)");
}

template <typename T>
std::vector<int32_t> lengths_of(const io::NamedTensor& tensor) {
  std::vector<int32_t> lengths;
  for (size_t i = 0; i < tensor.bytes / sizeof(T); ++i) {
    T value;
    std::memcpy(&value, tensor.data + i * sizeof(T), sizeof(T));
    if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
      throw UsageError("--key-lengths: " + std::to_string(value) + " in tensor " + io::in_quotes(tensor.name) +
                       " is not accepted; it takes 0 to the number of keys");
    }
    lengths.push_back(static_cast<int32_t>(value));
  }
  return lengths;
}

}  // namespace

RunFiles::RunFiles(const TensorNames& names, const ProblemFlags& flags) {
  if (!names.file.empty()) {
    if (is_npy(names.file)) {
      throw UsageError(io::in_quotes(names.file) +
                       " is a single array; give --q, --k and --v one .npy file each, and no FILE");
    }
    file_ = io::load_tensor_file(names.file);
  } else if (names.q.empty() || names.k.empty() || names.v.empty()) {
    throw UsageError("nothing to run; give a FILE.safetensors, or --q, --k and --v as .npy files");
  }
  const std::string q_name = names.q.empty() ? "q" : names.q;
  const std::string k_name = names.k.empty() ? "k" : names.k;
  const std::string v_name = names.v.empty() ? "v" : names.v;

  const io::NamedTensor& q = find("--q", q_name);
  const io::NamedTensor& k = find("--k", k_name);
  const io::NamedTensor& v = find("--v", v_name);
  require_rank_4("--q", q);
  require_rank_4("--k", k);
  require_rank_4("--v", v);
  require_extent("--batch", flags.batch, extent(q, 0));
  require_extent("--seqlen-q", flags.seqlen_q, extent(q, 1));
  require_extent("--seqlen-kv", flags.seqlen_kv, extent(k, 1));
  require_extent("--heads-q", flags.heads_q, extent(q, 2));
  require_extent("--heads-kv", flags.heads_kv, extent(k, 2));
  require_extent("--head-dim", flags.head_dim, extent(q, 3));
  require_extent("--head-dim-v", flags.head_dim_v, extent(v, 3));

  inputs_.q = input("--q", q_name, flags.dtype);
  inputs_.k = input("--k", k_name, flags.dtype);
  inputs_.v = input("--v", v_name, flags.dtype);
  spec_.batch = extent(q, 0);
  spec_.seqlen_q = extent(q, 1);
  spec_.seqlen_kv = extent(k, 1);
  spec_.heads_q = extent(q, 2);
  spec_.heads_kv = extent(k, 2);
  spec_.head_dim = extent(q, 3);
  spec_.head_dim_v = extent(v, 3);
  spec_.dtype = static_cast<Dtype>(inputs_.q.c().dtype);
  apply_options(flags, spec_);

  if (flags.key_lengths) read_key_lengths(*flags.key_lengths);
  if (!names.key_padding.empty()) inputs_.key_padding = view("--key-padding", names.key_padding);
  if (!names.mask.empty()) inputs_.dense_mask = view("--mask", names.mask);
  if (!names.bias.empty()) inputs_.bias = view("--bias", names.bias);
  if (!names.expect.empty()) {
    expect_ = &find("--expect", names.expect);
    const std::vector<int64_t> shape = {spec_.batch, spec_.seqlen_q, spec_.heads_q, spec_.head_dim_v};
    const bool is_float = expect_->dtype >= ATTNMUX_FP32 && expect_->dtype <= ATTNMUX_FP64;
    if (expect_->shape != shape || !is_float) {
      throw UsageError("--expect: tensor " + io::in_quotes(expect_->name) + " is " + expect_->file_dtype + " " +
                       io::shape_text(expect_->shape) + "; it takes floats of the output's shape, " +
                       io::shape_text(shape));
    }
  }
  const std::string where = names.file.empty() ? "" : std::filesystem::path(names.file).filename().string() + ": ";
  title_ = where + shared_name(q_name, k_name, v_name);
}

const io::NamedTensor& RunFiles::find(std::string_view flag, const std::string& name) {
  try {
    if (file_ && file_->find(name) != nullptr) return file_->at(name);
    if (is_npy(name)) {
      const io::TensorFile& array = arrays_.emplace_back(io::load_tensor_file(name));
      return array.at(array.tensors().front().name);
    }
    if (file_) return file_->at(name);
  } catch (const io::FileError& error) {
    throw UsageError(std::string(flag) + ": " + error.what());
  }
  throw UsageError(std::string(flag) + ": " + io::in_quotes(name) +
                   " is not accepted; without a FILE.safetensors it takes a .npy file");
}

TensorView RunFiles::view(std::string_view flag, const std::string& name) {
  try {
    return find(flag, name).view();
  } catch (const io::FileError& error) {
    throw UsageError(std::string(flag) + ": " + error.what());
  }
}

TensorView RunFiles::input(std::string_view flag, const std::string& name, std::optional<Dtype> dtype) {
  const TensorView stored = view(flag, name);
  const int32_t is = stored.c().dtype;
  if (!dtype || static_cast<Dtype>(is) == *dtype || is < ATTNMUX_FP32 || is > ATTNMUX_FP64) return stored;
  return converted_.emplace_back(converted(stored, *dtype)).view();
}

void RunFiles::read_key_lengths(const std::string& text) {
  const bool is_name = (file_ && file_->find(text) != nullptr) || is_npy(text) ||
                       text.find_first_not_of("0123456789,-") != std::string::npos;
  if (!is_name) return set_key_lengths(spec_, parse_lengths("--key-lengths", text));
  // PyTorch and numpy count in int64; the library takes int32.
  const io::NamedTensor* tensor = file_ ? file_->find(text) : nullptr;
  if (tensor == nullptr && is_npy(text)) {
    try {
      tensor = &arrays_.emplace_back(io::load_tensor_file(text)).tensors().front();
    } catch (const io::FileError& error) {
      throw UsageError(std::string("--key-lengths: ") + error.what());
    }
  }
  if (tensor == nullptr) tensor = &find("--key-lengths", text);
  const bool is_int64 = tensor->file_dtype == "I64" || tensor->file_dtype == "<i8";
  if (tensor->shape.size() != 1 || (tensor->dtype != ATTNMUX_INT32 && !is_int64)) {
    throw UsageError("--key-lengths: tensor " + io::in_quotes(tensor->name) + " is " + tensor->file_dtype + " " +
                     io::shape_text(tensor->shape) + "; it takes int32 or int64 of shape (batch)");
  }
  set_key_lengths(spec_, is_int64 ? lengths_of<int64_t>(*tensor) : lengths_of<int32_t>(*tensor));
}

std::vector<double> RunFiles::expected() const { return to_doubles(expect_->view()); }

void check_output_path(const std::string& path, const std::string& input_path, size_t tensors) {
  if (is_npy(path)) {
    if (tensors > 1) {
      throw UsageError("--out: " + io::in_quotes(path) + " holds one tensor, and there are " + std::to_string(tensors) +
                       " or more to write; take a .safetensors file");
    }
  } else if (!path.ends_with(".safetensors")) {
    throw UsageError("--out: " + io::in_quotes(path) + " is not accepted; it takes a .safetensors or .npy file");
  }
  std::error_code error;
  if (!input_path.empty() && std::filesystem::equivalent(path, input_path, error)) {
    throw UsageError("--out: " + io::in_quotes(path) + " is the input; take another file");
  }
}

}  // namespace attnmux::cli
