// SPDX-License-Identifier: Apache-2.0
// The parameters of a BERT encoder, read from a folder with config.json and model.safetensors.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <vector>

namespace sentence_encoder {

/// Activations have one row per token.
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::RowVectorXf;

struct Linear {
  Matrix weight;  // (out, in)
  Vector bias;
  Matrix operator()(const Matrix& x) const;
};

struct LayerNorm {
  Vector weight, bias;
  float epsilon = 0;
  Matrix operator()(const Matrix& x) const;
};

struct LayerWeights {
  Linear qkv;  // query, key and value under each other: one product for the three
  Linear attention_output;
  LayerNorm attention_norm;
  Linear up, down;
  LayerNorm output_norm;
};

struct Weights {
  int64_t num_heads = 0;
  size_t max_length = 0;  // tokens of a text, [CLS] and [SEP] included
  Matrix words, positions, types;
  LayerNorm embeddings_norm;
  std::vector<LayerWeights> layers;
};

/// Throws attnmux::io::FileError for a file that is missing, damaged or of another model.
Weights load_weights(const std::string& folder);

}  // namespace sentence_encoder
