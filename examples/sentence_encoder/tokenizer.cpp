// SPDX-License-Identifier: Apache-2.0
#include "tokenizer.h"

#include <algorithm>
#include <fstream>
#include <stdexcept>

#include "unicode_tables.h"

namespace sentence_encoder {

namespace {

constexpr char32_t kInvalid = 0xFFFD;  // one of kDropped
constexpr size_t kLongestWord = 100;   // characters; longer ones are unknown
constexpr std::string_view kSpecial[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

/// Takes one character off the front of UTF-8 text; kInvalid for a byte that starts none.
char32_t take_character(std::string_view& text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  const size_t length = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  char32_t code = length == 1 ? first : first & (0x7FU >> length);
  bool valid = length == 1 || (first >= 0xC2 && first <= 0xF4 && text.size() >= length);
  for (size_t i = 1; valid && i < length; ++i) {
    valid = (byte(i) & 0xC0) == 0x80;
    code = code << 6 | (byte(i) & 0x3F);
  }
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  valid = valid && code >= kSmallest[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
  text.remove_prefix(valid ? length : 1);
  return valid ? code : kInvalid;
}

void append_utf8(char32_t code, std::string& text) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  const auto put_rest = [&](int count) {
    while (count-- > 0) put(0x80 | (code >> (6 * count) & 0x3F));
  };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put_rest(1);
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put_rest(2);
  } else {
    put(0xF0 | code >> 18);
    put_rest(3);
  }
}

bool contains(std::span<const CodeRange> ranges, char32_t code) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), code,
                                      [](char32_t c, const CodeRange& range) { return c < range.first; });
  return after != ranges.begin() && code <= (after - 1)->last;
}

template <typename Row>
const Row* find(std::span<const Row> rows, char32_t code) {
  const auto at =
      std::lower_bound(rows.begin(), rows.end(), code, [](const Row& row, char32_t c) { return row.from < c; });
  return at != rows.end() && at->from == code ? &*at : nullptr;
}

/// A Hangul syllable comes apart into two or three letters (The Unicode Standard, section 3.12).
void append_hangul(char32_t syllable, std::u32string& word) {
  const char32_t index = syllable - 0xAC00;
  word.push_back(0x1100 + index / (21 * 28));
  word.push_back(0x1161 + index / 28 % 21);
  if (index % 28 != 0) word.push_back(0x11A7 + index % 28);
}

void append_folded(char32_t code, std::u32string& word) {
  if (code >= 0xAC00 && code <= 0xD7A3) {
    append_hangul(code, word);
  } else if (const CodePair* pair = find(kFold, code)) {
    word += pair->to;
  } else if (const CodeTriple* triple = find(kFoldToTwo, code)) {
    word += triple->first;
    word += triple->second;
  } else {
    word += code;
  }
}

}  // namespace

std::vector<std::u32string> split_words(std::string_view text) {
  std::vector<std::u32string> words;
  std::u32string word;
  const auto end_word = [&] {
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  };
  while (!text.empty()) {
    const char32_t code = take_character(text);
    if (contains(kDropped, code)) continue;
    if (contains(kSpace, code)) {
      end_word();
    } else if (contains(kPunctuation, code) || contains(kIdeograph, code)) {
      end_word();
      append_folded(code, word);
      end_word();
    } else {
      append_folded(code, word);
    }
  }
  end_word();
  return words;
}

Tokenizer::Tokenizer(const std::string& vocab_path, size_t max_length) : max_length_(max_length) {
  std::ifstream file(vocab_path);
  if (!file) throw std::runtime_error(vocab_path + ": cannot be opened");
  for (std::string line; std::getline(file, line);) {
    if (line.ends_with('\r')) line.pop_back();
    ids_.emplace(line, static_cast<int32_t>(ids_.size()));
  }
  pad_ = required("[PAD]", vocab_path);
  unknown_ = required("[UNK]", vocab_path);
  begin_ = required("[CLS]", vocab_path);
  end_ = required("[SEP]", vocab_path);
  if (max_length < 2)
    throw std::runtime_error("max_length is " + std::to_string(max_length) + "; at least 2 is accepted");
}

int32_t Tokenizer::required(const std::string& token, const std::string& path) const {
  const auto at = ids_.find(token);
  if (at == ids_.end()) throw std::runtime_error(path + ": has no token " + token);
  return at->second;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids = {begin_};
  while (!text.empty()) {
    // A special token in the text stands for itself; what lies between two of them is split into words.
    size_t at = text.size(), length = 0;
    for (const std::string_view special : kSpecial) {
      const size_t found = text.find(special);
      if (found < at) at = found, length = special.size();
    }
    for (const std::u32string& word : split_words(text.substr(0, at))) append_word(word, ids);
    if (length != 0) {
      const auto id = ids_.find(std::string(text.substr(at, length)));
      ids.push_back(id == ids_.end() ? unknown_ : id->second);
    }
    text.remove_prefix(at + length);
  }
  if (ids.size() > max_length_ - 1) ids.resize(max_length_ - 1);
  ids.push_back(end_);
  return ids;
}

/// The longest token that starts the word, then the longest "##" token that goes on, until the end; all or nothing.
void Tokenizer::append_word(const std::u32string& word, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  size_t begin = word.size() > kLongestWord ? word.size() : 0;
  bool known = begin == 0;
  while (known && begin < word.size()) {
    std::vector<size_t> ends;  // bytes of `piece` after each character
    std::string piece = begin == 0 ? "" : "##";
    for (const char32_t code : word.substr(begin)) {
      append_utf8(code, piece);
      ends.push_back(piece.size());
    }
    known = false;
    while (!known && !ends.empty()) {
      piece.resize(ends.back());
      const auto at = ids_.find(piece);
      if (at != ids_.end()) {
        ids.push_back(at->second);
        begin += ends.size();
        known = true;
      }
      ends.pop_back();
    }
  }
  if (!known) {
    ids.resize(before);
    ids.push_back(unknown_);
  }
}

}  // namespace sentence_encoder
