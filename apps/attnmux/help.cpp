// SPDX-License-Identifier: Apache-2.0
#include "attnmux/help.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "attnmux/table.h"

namespace attnmux::cli {
namespace {

using Rows = std::vector<std::pair<std::string, std::string>>;
constexpr size_t kNarrow = 80, kWide = 110, kGap = 2;

size_t page_width() {
  const int terminal = terminal_width(stdout);
  return terminal == 0 ? kNarrow : std::clamp(static_cast<size_t>(terminal), kNarrow / 2, kWide);
}

std::string section(const std::string& title, const Rows& rows, size_t first_column) {
  std::string page = "\n" + styled(title + ":", Style::kBold) + "\n";
  const size_t indent = 2 + first_column + kGap;
  for (const auto& [name, meaning] : rows) {
    const size_t used = display_width(name);
    std::string line = "  " + name + std::string(used < first_column ? first_column - used : 0, ' ');
    for (const std::string& part : wrapped(meaning, page_width() - indent)) {
      page += line + std::string(kGap, ' ') + part + "\n";
      line = std::string(indent - kGap, ' ');
    }
  }
  return page;
}

std::string flag_text(const CLI::Option& option) {
  std::string text;
  for (const std::string& name : option.get_snames()) text += "-" + name + ", ";
  for (const std::string& name : option.get_lnames())
    text += (text.empty() || text.ends_with(", ") ? "--" : ", --") + name;
  const std::string& value = option.get_option_text();
  if (!value.empty()) text += value.starts_with("[=") ? value : " " + value;
  return text;
}

}  // namespace

std::string HelpFormatter::make_help(const CLI::App* app, std::string name, CLI::AppFormatMode) const {
  const bool whole_tool = app->get_parent() == nullptr;
  std::string positional_names;
  Rows positionals, commands;
  std::vector<std::pair<std::string, Rows>> groups;
  for (const CLI::Option* option : app->get_options()) {
    if (option->get_positional()) {
      positional_names += option->get_required() ? " " + option->get_name() : " [" + option->get_name() + "]";
      positionals.emplace_back(option->get_name(), option->get_description());
      continue;
    }
    if (option->get_group().empty()) continue;
    auto group =
        std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == option->get_group(); });
    if (group == groups.end()) group = groups.insert(groups.end(), {option->get_group(), {}});
    group->second.emplace_back(flag_text(*option), option->get_description());
  }
  for (const CLI::App* sub : app->get_subcommands([](const CLI::App*) { return true; })) {
    commands.emplace_back(sub->get_name(), sub->get_description());
  }
  // CLI11 puts --help first; it reads better at the end.
  std::stable_partition(groups.begin(), groups.end(), [](const auto& g) { return g.first != "Options"; });

  size_t first_column = 0;
  const auto measure = [&](const Rows& rows) {
    for (const auto& row : rows) first_column = std::max(first_column, display_width(row.first));
  };
  measure(positionals);
  measure(commands);
  for (const auto& group : groups) measure(group.second);

  std::string page;
  for (const std::string& line : wrapped(app->get_description(), page_width())) page += line + "\n";
  page += "\n" + styled("Usage:", Style::kBold) + " " + name + positional_names +
          (whole_tool ? " SUBCOMMAND [FLAGS]" : " [FLAGS]") + "\n";
  if (!positionals.empty()) page += section("Arguments", positionals, first_column);
  if (!commands.empty()) page += section("Subcommands", commands, first_column);
  for (const auto& [title, rows] : groups) page += section(title, rows, first_column);
  if (!app->get_footer().empty()) page += "\n" + app->get_footer() + "\n";
  return page;
}

}  // namespace attnmux::cli
