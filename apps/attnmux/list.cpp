// SPDX-License-Identifier: Apache-2.0
// attnmux list: every backend, what it runs, or why it does not.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <memory>

#include "attnmux/backend_table.h"
#include "attnmux/commands.h"
#include "attnmux/errors.h"
#include "attnmux/machine.h"
#include "attnmux/numbers.h"
#include "attnmux/problem_flags.h"
#include "attnmux/table.h"

namespace attnmux::cli {
namespace {

// The lowest class over the dtypes: what to expect of the backend at worst.
std::string lowest_class(const Json& accuracy) {
  constexpr std::array<std::string_view, 4> kClasses = {"exact", "16-bit", "quantized", "approximate"};
  size_t lowest = 0;
  for (const auto& item : accuracy.items()) {
    const auto found = std::find(kClasses.begin(), kClasses.end(), item.value().get<std::string>());
    lowest = std::max(lowest, static_cast<size_t>(found - kClasses.begin()));
  }
  return accuracy.empty() || lowest >= kClasses.size() ? "–" : std::string(kClasses[lowest]);
}

std::string runnable_kernels(const BackendInfo& backend) {
  std::vector<std::string> names;
  for (const KernelInfo& kernel : backend.kernels) {
    if (kernel.available) names.push_back(kernel.name);
  }
  return brief_list(names);
}

int print_list() {
  const auto backends = backend_table();
  const auto running =
      std::count_if(backends.begin(), backends.end(), [](const BackendInfo& b) { return b.available; });
  Table table({"backend", "family", "runs", "class", "kernels, or why not"});
  for (const BackendInfo& b : backends) {
    if (b.available) {
      table.row(
          {{b.name, Style::kBold}, b.family, {"yes", Style::kGood}, lowest_class(b.accuracy), runnable_kernels(b)});
    } else {
      table.row({b.name, b.family, {"–", Style::kDim}, {"–", Style::kDim}, {b.reason, Style::kDim}});
    }
  }
  const std::string headline =
      std::to_string(running) + " of " + counted(static_cast<int64_t>(backends.size()), "backend") +
      " run on this machine: " + machine().value("cpu", "unknown CPU") + ", " + machine_text() + "\n";
  std::fputs(headline.c_str(), stdout);
  table.print();
  return kExitOk;
}

}  // namespace

void add_list(CLI::App& app, Program& program) {
  CLI::App* sub = app.add_subcommand("list", "every backend, what it runs, or why it does not");
  const auto json = std::make_shared<bool>(false);
  add_switch(*sub, "--json", *json, "one JSON array: name, family, available, reason, kernels, accuracy, …");
  sub->footer(examples({"attnmux list", "attnmux list --json | jq -r '.[] | select(.available) | .name'",
                        "attnmux list --plugin ./libacme_attention.so"}));
  sub->callback([json, &program] {
    program.action = [json] {
      if (!*json) return print_list();
      print_json(describe(ATTNMUX_DESCRIBE_BACKENDS));
      return static_cast<int>(kExitOk);
    };
  });
}

}  // namespace attnmux::cli
