// SPDX-License-Identifier: Apache-2.0
// BERT's uncased WordPiece tokenizer: text in, the ids of vocab.txt out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sentence_encoder {

class Tokenizer {
 public:
  /// vocab.txt has one token a line; its id is the number of the line, from 0. `max_length` counts [CLS] and [SEP].
  /// Throws std::runtime_error.
  Tokenizer(const std::string& vocab_path, size_t max_length);

  /// [CLS] text [SEP], cut to max_length. Bytes that are not UTF-8 are skipped.
  std::vector<int32_t> encode(std::string_view text) const;

  int32_t pad() const { return pad_; }

 private:
  int32_t required(const std::string& token, const std::string& path) const;
  void append_word(const std::u32string& word, std::vector<int32_t>& ids) const;

  std::unordered_map<std::string, int32_t> ids_;
  size_t max_length_;
  int32_t pad_, unknown_, begin_, end_;
};

/// The words of a text: lower case, without accents, punctuation and ideographs as words of their own.
std::vector<std::u32string> split_words(std::string_view text);

}  // namespace sentence_encoder
