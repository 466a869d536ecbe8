// SPDX-License-Identifier: Apache-2.0
// What `attnmux run` reads and writes: tensors of a .safetensors file, or .npy files.
#pragma once

#include <io/tensor_file.h>

#include <deque>
#include <optional>
#include <string>

#include "attnmux/inputs.h"

namespace attnmux::cli {

/// Names as given on the command line; empty where a flag is not given.
struct TensorNames {
  std::string file, q, k, v, key_padding, mask, bias, expect;
};

/// The tensors of a run. Owns what its views look at.
class RunFiles {
 public:
  /// Opens the file, finds every tensor and checks what the names of the flags promise.
  RunFiles(const TensorNames& names, const ProblemFlags& flags);

  const ProblemSpec& spec() const { return spec_; }
  const Inputs& inputs() const { return inputs_; }
  bool has_expect() const { return expect_ != nullptr; }
  std::vector<double> expected() const;
  /// "page.2" for page.2.q, page.2.k and page.2.v in a file, with the file's name; no shape.
  const std::string& title() const { return title_; }

 private:
  const io::NamedTensor& find(std::string_view flag, const std::string& name);
  TensorView view(std::string_view flag, const std::string& name);
  TensorView input(std::string_view flag, const std::string& name, std::optional<Dtype> dtype);
  void read_key_lengths(const std::string& text);

  std::optional<io::TensorFile> file_;
  std::deque<io::TensorFile> arrays_;  // .npy files; a deque keeps references valid
  std::deque<HostTensor> converted_;
  const io::NamedTensor* expect_ = nullptr;
  ProblemSpec spec_;
  Inputs inputs_;
  std::string title_;
};

/// Refuses an output file that could not be written as asked, before anything has run.
void check_output_path(const std::string& path, const std::string& input_path, size_t tensors);

}  // namespace attnmux::cli
