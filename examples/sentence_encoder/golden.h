// SPDX-License-Identifier: Apache-2.0
// Holds tokens and embeddings against those of sentence-transformers.
#pragma once

#include <string>

#include "encoder.h"
#include "tokenizer.h"

namespace sentence_encoder {

/// `path`: a file of tests/golden/make_sentence_encoder_golden.py. Every text alone, and in padded batches on every
/// backend that computes fp32 exactly. Prints what it found; true if all of it is equal.
bool check_golden(Encoder& encoder, const Tokenizer& tokenizer, const std::string& path);

}  // namespace sentence_encoder
