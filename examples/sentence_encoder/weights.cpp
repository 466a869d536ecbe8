// SPDX-License-Identifier: Apache-2.0
#include "weights.h"

#include <io/safetensors.h>

#include <nlohmann/json.hpp>

namespace sentence_encoder {

namespace {

using attnmux::io::FileError;
using attnmux::io::TensorFile;

nlohmann::json read_json(const std::string& path) {
  const attnmux::io::Buffer text = attnmux::io::read_file(path);
  const auto* begin = reinterpret_cast<const char*>(text.data.get());
  try {
    return nlohmann::json::parse(begin, begin + text.size);
  } catch (const nlohmann::json::exception& error) {
    throw FileError(path, error.what());
  }
}

template <typename T>
T setting(const nlohmann::json& json, const char* name, const std::string& path) {
  try {
    return json.at(name).get<T>();
  } catch (const nlohmann::json::exception& error) {
    throw FileError(path, error.what());
  }
}

/// Takes tensors out of the file and holds their shapes against what the model needs.
class Reader {
 public:
  explicit Reader(const std::string& path) : file_(attnmux::io::load_safetensors(path)) {}

  bool has(const std::string& name) const { return file_.find(name) != nullptr; }

  Matrix matrix(const std::string& name, int64_t cols) const {
    const auto& tensor = file_.at(name);
    if (tensor.shape.size() != 2 || tensor.shape[1] != cols) fail(name, "(n, " + std::to_string(cols) + ")");
    return Eigen::Map<const Matrix>(tensor.values<float>().data(), tensor.shape[0], tensor.shape[1]);
  }
  Vector vector(const std::string& name, int64_t size) const {
    const auto& tensor = file_.at(name);
    if (tensor.shape != std::vector<int64_t>{size}) fail(name, "(" + std::to_string(size) + ",)");
    return Eigen::Map<const Vector>(tensor.values<float>().data(), size);
  }
  Linear linear(const std::string& name, int64_t in) const {
    Matrix weight = matrix(name + ".weight", in);
    Vector bias = vector(name + ".bias", weight.rows());
    return {std::move(weight), std::move(bias)};
  }
  LayerNorm norm(const std::string& name, int64_t size, float epsilon) const {
    return {vector(name + ".weight", size), vector(name + ".bias", size), epsilon};
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& wanted) const {
    throw FileError(file_.path(), "tensor " + attnmux::io::in_quotes(name) + " has shape " +
                                      attnmux::io::shape_text(file_.at(name).shape) + "; this model needs " + wanted);
  }
  TensorFile file_;
};

Linear stack(const Linear& a, const Linear& b, const Linear& c) {
  Linear all{Matrix(a.weight.rows() + b.weight.rows() + c.weight.rows(), a.weight.cols()), {}};
  all.weight << a.weight, b.weight, c.weight;
  all.bias.resize(all.weight.rows());
  all.bias << a.bias, b.bias, c.bias;
  return all;
}

}  // namespace

Matrix Linear::operator()(const Matrix& x) const {
  Matrix y(x.rows(), weight.rows());
  y.noalias() = x * weight.transpose();
  y.rowwise() += bias;
  return y;
}

Matrix LayerNorm::operator()(const Matrix& x) const {
  Matrix y(x.rows(), x.cols());
  for (Eigen::Index row = 0; row < x.rows(); ++row) {
    const Vector centered = x.row(row).array() - x.row(row).mean();
    const float variance = centered.squaredNorm() / static_cast<float>(x.cols());
    y.row(row) = (centered.array() / std::sqrt(variance + epsilon)) * weight.array() + bias.array();
  }
  return y;
}

Weights load_weights(const std::string& folder) {
  Weights weights;
  const std::string config_path = folder + "/config.json";
  const nlohmann::json config = read_json(config_path);
  const auto hidden = setting<int64_t>(config, "hidden_size", config_path);
  const auto epsilon = setting<float>(config, "layer_norm_eps", config_path);
  const auto activation = setting<std::string>(config, "hidden_act", config_path);
  if (activation != "gelu") throw FileError(config_path, "hidden_act is " + activation + "; accepted is gelu");
  weights.num_heads = setting<int64_t>(config, "num_attention_heads", config_path);
  if (hidden < 1 || weights.num_heads < 1 || hidden % weights.num_heads != 0) {
    throw FileError(config_path, "hidden_size is " + std::to_string(hidden) + ", no multiple of num_attention_heads, " +
                                     std::to_string(weights.num_heads));
  }
  const std::string limits_path = folder + "/sentence_bert_config.json";
  weights.max_length = setting<size_t>(read_json(limits_path), "max_seq_length", limits_path);

  const std::string path = folder + "/model.safetensors";
  const Reader reader(path);
  weights.words = reader.matrix("embeddings.word_embeddings.weight", hidden);
  weights.positions = reader.matrix("embeddings.position_embeddings.weight", hidden);
  weights.types = reader.matrix("embeddings.token_type_embeddings.weight", hidden);
  weights.embeddings_norm = reader.norm("embeddings.LayerNorm", hidden, epsilon);
  if (static_cast<size_t>(weights.positions.rows()) < weights.max_length || weights.types.rows() < 1) {
    throw FileError(path, "has " + std::to_string(weights.positions.rows()) + " positions; max_seq_length is " +
                              std::to_string(weights.max_length));
  }
  for (int i = 0;; ++i) {
    const std::string layer = "encoder.layer." + std::to_string(i) + ".";
    if (!reader.has(layer + "attention.self.query.weight")) break;
    LayerWeights w;
    w.qkv = stack(reader.linear(layer + "attention.self.query", hidden),
                  reader.linear(layer + "attention.self.key", hidden),
                  reader.linear(layer + "attention.self.value", hidden));
    w.attention_output = reader.linear(layer + "attention.output.dense", hidden);
    w.attention_norm = reader.norm(layer + "attention.output.LayerNorm", hidden, epsilon);
    w.up = reader.linear(layer + "intermediate.dense", hidden);
    w.down = reader.linear(layer + "output.dense", w.up.weight.rows());
    w.output_norm = reader.norm(layer + "output.LayerNorm", hidden, epsilon);
    if (w.qkv.weight.rows() != 3 * hidden || w.attention_output.weight.rows() != hidden ||
        w.down.weight.rows() != hidden) {
      throw FileError(path, layer + "* does not map " + std::to_string(hidden) + " values to as many");
    }
    weights.layers.push_back(std::move(w));
  }
  return weights;
}

}  // namespace sentence_encoder
