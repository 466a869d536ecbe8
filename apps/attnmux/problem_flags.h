// SPDX-License-Identifier: Apache-2.0
// A problem in flags: --batch, --seqlen-q, --causal, …, the same for every subcommand.
#pragma once

#include <attnmux/options.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace attnmux::cli {

struct WindowFlag {
  int64_t left = -1, right = -1;  // -1: unlimited
  Align align = Align::kNone;
};

/// What the command line says; empty where a flag is not given.
struct ProblemFlags {
  std::optional<int64_t> batch, seqlen_q, seqlen_kv, heads_q, heads_kv, head_dim, head_dim_v;
  std::optional<Dtype> dtype;
  std::optional<Align> causal;
  std::string causal_text;  // where CLI11 keeps the text of which `causal` is made
  std::optional<WindowFlag> window;
  std::optional<double> softcap, scale, dropout;
  std::optional<uint64_t> seed;
  std::optional<std::string> key_lengths;  // numbers, or the name of a tensor where there is a file
  bool lse = false;
  std::vector<std::string> backends;
  std::string kernel;
  bool allow_lossy = false;
  std::optional<Device> device;
  std::optional<int> threads;

  /// Is anything about the problem itself given (and not only about where and how it runs)?
  bool describe_a_problem() const;
};

enum class BackendFlag { kOne, kMany };

/// Adds the flags; `flags` must outlive the parsing. A bad value throws UsageError while the command line is parsed.
void add_problem_flags(CLI::App& app, ProblemFlags& flags, BackendFlag backend);
/// An option whose text is handed to `set`.
CLI::Option* add_text_option(CLI::App& app, const std::string& name, const std::string& label, const std::string& help,
                             const std::function<void(const std::string&)>& set);
/// A flag without a value.
CLI::Option* add_switch(CLI::App& app, const std::string& name, bool& value, const std::string& help);

Dtype parse_dtype(std::string_view flag, std::string_view text);
Device parse_device(std::string_view flag, std::string_view text);
Align parse_align(std::string_view flag, std::string_view text);
WindowFlag parse_window(std::string_view flag, std::string_view text);
std::vector<int32_t> parse_lengths(std::string_view flag, std::string_view text);

}  // namespace attnmux::cli
