// SPDX-License-Identifier: Apache-2.0
// One line on stderr that tells how far long work has come; only on a terminal.
#pragma once

#include <string>
#include <string_view>

namespace attnmux::cli {

class Progress {
 public:
  explicit Progress(std::string title);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` is between 0 and 1.
  void show(double done, std::string_view what);
  void clear();

 private:
  std::string title_;
  bool terminal_, shown_ = false;
};

}  // namespace attnmux::cli
