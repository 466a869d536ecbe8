// SPDX-License-Identifier: Apache-2.0
// A BERT sentence encoder whose attention is attnmux's.
#pragma once

#include <attnmux/attnmux.h>

#include "weights.h"

namespace sentence_encoder {

class Encoder : public attnmux::ModelMixin<Encoder> {
 public:
  explicit Encoder(Weights weights);

  /// One row per text: the mean over its tokens, of length 1. Shorter texts are padded, and the padding is masked.
  /// Throws std::invalid_argument for an empty text or for a token that the model does not have.
  Matrix encode(const std::vector<std::vector<int32_t>>& batch, int32_t pad = 0) const;

  /// Says once where the layers are: layers.0.self, layers.1.self, …
  void visit_attention_layers(const attnmux::LayerVisitor& visit);

 private:
  struct Layer {
    LayerWeights weights;
    attnmux::AttentionLayer self{"self"};
  };
  struct Shape {
    int64_t batch, seqlen;
  };
  Matrix attention(const Layer& layer, const Matrix& x, Shape shape, const std::vector<int32_t>& lengths) const;

  Weights weights_;
  std::vector<Layer> layers_;
};

}  // namespace sentence_encoder
