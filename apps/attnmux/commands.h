// SPDX-License-Identifier: Apache-2.0
// The subcommands, one file each. add_… registers flags and help; what the user asked for becomes `action`.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace attnmux::cli {

struct Program {
  std::vector<std::string> plugins;  // --plugin FILE, loaded before the action
  std::function<int()> action;       // returns the exit code
};

void add_list(CLI::App& app, Program& program);
void add_explain(CLI::App& app, Program& program);
void add_run(CLI::App& app, Program& program);
void add_bench(CLI::App& app, Program& program);
void add_verify(CLI::App& app, Program& program);
void add_doctor(CLI::App& app, Program& program);
void add_completion(CLI::App& app, Program& program);

/// "Examples:" and the lines, indented, for the end of a help page.
std::string examples(const std::vector<std::string>& lines);

/// The whole tool: parses, acts, reports errors on stderr; returns the exit code.
int run_tool(int argc, const char* const* argv);

}  // namespace attnmux::cli
