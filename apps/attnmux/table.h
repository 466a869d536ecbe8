// SPDX-License-Identifier: Apache-2.0
// Aligned tables. Colour only on a terminal, and not where NO_COLOR is set (https://no-color.org).
#pragma once

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux::cli {

enum class Style { kPlain, kBold, kDim, kGood, kBad };

/// Columns of the terminal behind a stream; 0 where there is none.
int terminal_width(std::FILE* stream);
bool is_terminal(std::FILE* stream);
/// The text with its style where the stream shows colours, the text itself elsewhere.
std::string styled(std::string_view text, Style style, std::FILE* stream = stdout);
/// Columns that UTF-8 text takes: one per code point, which holds for the signs that the tool prints.
size_t display_width(std::string_view text);

struct Cell {
  Cell(std::string_view cell_text, Style cell_style = Style::kPlain) : text(cell_text), style(cell_style) {}
  Cell(const std::string& cell_text, Style cell_style = Style::kPlain) : text(cell_text), style(cell_style) {}
  Cell(const char* cell_text, Style cell_style = Style::kPlain) : text(cell_text), style(cell_style) {}
  std::string text;
  Style style;
};

/// Left-aligned columns under titles. The last column wraps at the width of the terminal.
class Table {
 public:
  /// A title that starts with '>' makes a column of numbers, aligned to the right.
  explicit Table(std::vector<std::string> titles, size_t indent = 2);
  /// Fewer cells than columns: the last one given may run over the rest.
  void row(std::vector<Cell> cells);
  void print(std::FILE* stream = stdout) const;

 private:
  std::vector<std::string> titles_;
  std::vector<bool> to_the_right_;
  std::vector<std::vector<Cell>> rows_;
  size_t indent_;
};

/// Text cut into lines of at most `width` columns, at spaces.
std::vector<std::string> wrapped(std::string_view text, size_t width);

}  // namespace attnmux::cli
