// SPDX-License-Identifier: Apache-2.0
// The ways to switch the attention of a real model, one after the other.
#pragma once

#include "encoder.h"

namespace sentence_encoder {

/// Prints, for each step, the backends of the layers, the time and how far the embeddings are from the first step's.
void take_tour(Encoder& encoder, const std::vector<std::vector<int32_t>>& batch);

}  // namespace sentence_encoder
