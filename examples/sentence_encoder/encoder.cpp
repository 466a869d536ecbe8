// SPDX-License-Identifier: Apache-2.0
#include "encoder.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>

namespace sentence_encoder {

namespace {

/// x · Φ(x), with the error function itself and not its tanh approximation.
void gelu(Matrix& x) {
  x = x.unaryExpr([](float v) { return 0.5f * v * (1.0f + std::erf(v / std::numbers::sqrt2_v<float>)); });
}

}  // namespace

Encoder::Encoder(Weights weights) : weights_(std::move(weights)) {
  for (LayerWeights& layer : weights_.layers) layers_.push_back({std::move(layer)});
  weights_.layers.clear();
}

void Encoder::visit_attention_layers(const attnmux::LayerVisitor& visit) {
  for (size_t i = 0; i < layers_.size(); ++i) visit.under("layers", i)("self", layers_[i].self);
}

/// x: (B·S, hidden), result the same.
Matrix Encoder::attention(const Layer& layer, const Matrix& x, Shape shape, const std::vector<int32_t>& lengths) const {
  const int64_t B = shape.batch, S = shape.seqlen, H = weights_.num_heads, D = x.cols() / H;
  // q, k and v lie side by side in each row of one matrix. Views with strides, not copies, take them apart.
  const Matrix qkv = layer.weights.qkv(x);
  const int64_t row = qkv.cols();
  const auto part = [&](int64_t i) {
    return attnmux::TensorView(qkv.data() + i * H * D, attnmux::Dtype::kFp32, {B, S, H, D}, {S * row, row, D, 1});
  };
  Matrix out(x.rows(), x.cols());
  attnmux::attention(part(0), part(1), part(2), attnmux::MutableTensorView(out.data(), {B, S, H, D}),
                     {.mask = attnmux::Mask::key_lengths(lengths), .layer = &layer.self});
  return out;
}

Matrix Encoder::encode(const std::vector<std::vector<int32_t>>& batch, int32_t pad) const {
  std::vector<int32_t> lengths;
  for (const auto& ids : batch) {
    if (ids.empty()) throw std::invalid_argument("a text without tokens; at least [CLS] and [SEP] are needed");
    lengths.push_back(static_cast<int32_t>(ids.size()));
  }
  const int64_t hidden = weights_.words.cols();
  const Shape shape{static_cast<int64_t>(batch.size()),
                    lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end())};
  if (shape.seqlen > weights_.positions.rows()) {
    throw std::invalid_argument("a text of " + std::to_string(shape.seqlen) + " tokens; the model has " +
                                std::to_string(weights_.positions.rows()) + " positions");
  }

  Matrix x(shape.batch * shape.seqlen, hidden);
  for (int64_t b = 0; b < shape.batch; ++b) {
    const auto& ids = batch[static_cast<size_t>(b)];
    for (int64_t s = 0; s < shape.seqlen; ++s) {
      const int32_t id = static_cast<size_t>(s) < ids.size() ? ids[static_cast<size_t>(s)] : pad;
      if (id < 0 || id >= weights_.words.rows()) {
        throw std::invalid_argument("token " + std::to_string(id) + "; the model has " +
                                    std::to_string(weights_.words.rows()));
      }
      x.row(b * shape.seqlen + s) = weights_.words.row(id) + weights_.positions.row(s) + weights_.types.row(0);
    }
  }
  x = weights_.embeddings_norm(x);

  for (const Layer& layer : layers_) {
    const LayerWeights& w = layer.weights;
    x = w.attention_norm(x + w.attention_output(attention(layer, x, shape, lengths)));
    Matrix inner = w.up(x);
    gelu(inner);
    x = w.output_norm(x + w.down(inner));
  }

  Matrix embeddings(shape.batch, hidden);
  for (int64_t b = 0; b < shape.batch; ++b) {
    embeddings.row(b) = x.middleRows(b * shape.seqlen, lengths[static_cast<size_t>(b)]).colwise().mean().normalized();
  }
  return embeddings;
}

}  // namespace sentence_encoder
