// SPDX-License-Identifier: Apache-2.0
// What BERT's uncased tokenizer does to single characters; sorted, written by make_unicode_tables.py.
#pragma once

#include <cstdint>
#include <span>

namespace sentence_encoder {

struct CodeRange {
  char32_t first, last;
};
struct CodePair {
  char32_t from, to;
};
struct CodeTriple {
  char32_t from, first, second;
};

extern const std::span<const CodeRange> kDropped;      // controls, formats, private use, combining marks
extern const std::span<const CodeRange> kSpace;        // ends a word
extern const std::span<const CodeRange> kIdeograph;    // a word of its own
extern const std::span<const CodeRange> kPunctuation;  // likewise
extern const std::span<const CodePair> kFold;          // lower case, without accents
extern const std::span<const CodeTriple> kFoldToTwo;   // the few that come apart

}  // namespace sentence_encoder
