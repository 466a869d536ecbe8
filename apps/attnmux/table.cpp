// SPDX-License-Identifier: Apache-2.0
#include "attnmux/table.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace attnmux::cli {
namespace {

constexpr size_t kGap = 2;         // spaces between columns
constexpr size_t kNarrowest = 24;  // a last column is not wrapped into less

bool shows_colour(std::FILE* stream) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return is_terminal(stream) && (no_color == nullptr || no_color[0] == 0) &&
         !(term != nullptr && std::string_view(term) == "dumb");
}

std::string_view escape(Style style) {
  switch (style) {
    case Style::kPlain:
      return "";
    case Style::kBold:
      return "\x1b[1m";
    case Style::kDim:
      return "\x1b[2m";
    case Style::kGood:
      return "\x1b[32m";
    case Style::kBad:
      return "\x1b[31m";
  }
  return "";
}

std::string padding(size_t width, std::string_view text) {
  const size_t used = display_width(text);
  return std::string(used < width ? width - used : 0, ' ');
}

}  // namespace

bool is_terminal(std::FILE* stream) { return isatty(fileno(stream)) == 1; }

int terminal_width(std::FILE* stream) {
  winsize size{};
  if (!is_terminal(stream) || ioctl(fileno(stream), TIOCGWINSZ, &size) != 0) return 0;
  return size.ws_col;
}

std::string styled(std::string_view text, Style style, std::FILE* stream) {
  if (style == Style::kPlain || text.empty() || !shows_colour(stream)) return std::string(text);
  return std::string(escape(style)) + std::string(text) + "\x1b[0m";
}

size_t display_width(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::vector<std::string> wrapped(std::string_view text, size_t width) {
  std::vector<std::string> lines(1);
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, space);
    text.remove_prefix(std::min(space + 1, text.size()));
    std::string& line = lines.back();
    if (line.empty()) {
      line = word;
    } else if (display_width(line) + 1 + display_width(word) <= width) {
      line += ' ';
      line += word;
    } else {
      lines.emplace_back(word);
    }
  }
  return lines;
}

Table::Table(std::vector<std::string> titles, size_t indent) : titles_(std::move(titles)), indent_(indent) {
  for (std::string& title : titles_) {
    const bool right = title.starts_with('>');
    if (right) title.erase(0, 1);
    to_the_right_.push_back(right);
  }
}

void Table::row(std::vector<Cell> cells) { rows_.push_back(std::move(cells)); }

void Table::print(std::FILE* stream) const {
  const size_t columns = titles_.size();
  std::vector<size_t> width(columns);
  for (size_t c = 0; c < columns; ++c) width[c] = display_width(titles_[c]);
  for (const auto& cells : rows_) {
    for (size_t c = 0; c < cells.size(); ++c) {
      const bool runs_over = c + 1 == cells.size() && cells.size() < columns;
      if (!runs_over) width[c] = std::max(width[c], display_width(cells[c].text));
    }
  }
  const auto terminal = static_cast<size_t>(terminal_width(stream));

  const auto print_row = [&](const std::vector<Cell>& cells) {
    std::string line(indent_, ' ');
    size_t column = indent_;
    for (size_t c = 0; c < cells.size(); ++c) {
      const Cell& cell = cells[c];
      const bool last = c + 1 == cells.size();
      const std::string pad = padding(width[c], cell.text);
      if (last && !(to_the_right_[c] && cells.size() == columns)) {
        const bool wraps = terminal > column + kNarrowest;
        const auto lines = wrapped(cell.text, wraps ? terminal - column : std::string::npos);
        for (size_t i = 0; i < lines.size(); ++i) {
          if (i > 0) line.append(1, '\n').append(column, ' ');
          line += styled(lines[i], cell.style, stream);
        }
      } else {
        const std::string text = styled(cell.text, cell.style, stream);
        line += to_the_right_[c] ? pad + text : text + pad;
        if (!last) line += std::string(kGap, ' ');
        column += width[c] + kGap;
      }
    }
    line.erase(line.find_last_not_of(' ') + 1);
    line += '\n';
    std::fputs(line.c_str(), stream);
  };

  std::vector<Cell> heading;
  for (const std::string& title : titles_) heading.emplace_back(title, Style::kDim);
  print_row(heading);
  for (const auto& cells : rows_) print_row(cells);
}

}  // namespace attnmux::cli
