// SPDX-License-Identifier: Apache-2.0
// Help pages: flags in one column, what they mean in the next, wrapped at the width of the terminal.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace attnmux::cli {

class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
};

}  // namespace attnmux::cli
