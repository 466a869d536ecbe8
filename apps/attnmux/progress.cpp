// SPDX-License-Identifier: Apache-2.0
#include "attnmux/progress.h"

#include <cstdio>

#include "attnmux/numbers.h"
#include "attnmux/table.h"

namespace attnmux::cli {

Progress::Progress(std::string title) : title_(std::move(title)), terminal_(is_terminal(stderr)) {}
Progress::~Progress() { clear(); }

void Progress::show(double done, std::string_view what) {
  if (!terminal_) return;
  std::string line = title_ + " " + fixed(100 * done, 0) + " %  " + std::string(what);
  const auto width = static_cast<size_t>(terminal_width(stderr));
  if (width > 1 && line.size() > width - 1) line.resize(width - 1);  // counts bytes: never too long
  std::fputs(("\r\x1b[K" + line).c_str(), stderr);
  std::fflush(stderr);
  shown_ = true;
}

void Progress::clear() {
  if (!shown_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace attnmux::cli
