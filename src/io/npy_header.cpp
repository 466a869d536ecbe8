// SPDX-License-Identifier: Apache-2.0
#include <io/npy_header.h>

#include <charconv>
#include <system_error>

namespace attnmux::io {

namespace {

class Parser {
 public:
  Parser(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  NpyHeader parse() {
    NpyHeader header;
    bool seen_descr = false, seen_order = false, seen_shape = false;
    const auto once = [&](bool& seen, const char* key) {
      if (seen) fail("the key " + in_quotes(key) + " is given twice");
      seen = true;
    };
    expect('{', "the header has to be a dict that starts with {");
    while (!accept('}')) {
      const std::string key = parse_text("a key in quotes");
      expect(':', "a : has to follow the key");
      if (key == "descr") {
        once(seen_descr, "descr");
        header.descr = parse_descr();
      } else if (key == "fortran_order") {
        once(seen_order, "fortran_order");
        header.fortran_order = parse_bool();
      } else if (key == "shape") {
        once(seen_shape, "shape");
        header.shape = parse_shape();
      } else {
        fail("unknown key " + in_quotes(key) + "; accepted are descr, fortran_order and shape");
      }
      if (!accept(',')) {
        expect('}', "a , or } has to follow the value");
        break;
      }
    }
    skip_space();
    if (at_ != text_.size()) fail("nothing may follow the dict");
    if (!seen_descr || !seen_order || !seen_shape) {
      fail(std::string("the key ") + (!seen_descr ? "descr" : !seen_order ? "fortran_order" : "shape") + " is missing");
    }
    return header;
  }

 private:
  std::string parse_descr() {
    skip_space();
    if (peek() == '[') fail("descr is a list: arrays of records are not accepted, only plain ones such as '<f4'");
    return parse_text("a dtype in quotes, such as '<f4'");
  }

  bool parse_bool() {
    skip_space();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return value;
      }
    }
    fail("fortran_order has to be True or False");
  }

  std::vector<int64_t> parse_shape() {
    std::vector<int64_t> shape;
    expect('(', "shape has to be a tuple of whole numbers");
    bool comma = true;
    while (!accept(')')) {
      if (!comma) fail("a , has to stand between the extents of shape");
      if (shape.size() == kMaxRank) fail("shape has more than 8 dimensions");
      shape.push_back(parse_extent());
      comma = accept(',');
    }
    if (shape.size() == 1 && !comma) fail("shape is a number in parentheses; a tuple of one is written (n,)");
    return shape;
  }

  int64_t parse_extent() {
    skip_space();
    int64_t value = -1;
    const char* first = text_.data() + at_;
    const char* last = text_.data() + text_.size();
    const auto [end, error] = std::from_chars(first, last, value);
    if (error != std::errc() || value < 0) fail("an extent of shape has to be a whole number from 0 to 2^63-1");
    at_ += static_cast<size_t>(end - first);
    return value;
  }

  std::string parse_text(const char* wanted) {
    skip_space();
    const char quote = peek();
    if (quote != '\'' && quote != '"') fail(std::string("expected ") + wanted);
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail("the text in quotes has no end");
    const std::string_view content = text_.substr(at_ + 1, end - at_ - 1);
    if (content.find('\\') != std::string_view::npos) fail("escapes are not accepted in text");
    at_ = end + 1;
    return std::string(content);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool accept(char wanted) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted, const char* problem) {
    if (!accept(wanted)) fail(problem);
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  [[noreturn]] void fail(const std::string& problem) const {
    throw FileError(file_, "npy header, character " + std::to_string(at_) + ": " + problem + "; there is " +
                               (at_ < text_.size() ? in_quotes(text_.substr(at_, 24)) : "the end"));
  }

  std::string_view text_;
  const std::string& file_;
  size_t at_ = 0;
};

}  // namespace

NpyHeader parse_npy_header(std::string_view text, const std::string& file) { return Parser(text, file).parse(); }

}  // namespace attnmux::io
