// SPDX-License-Identifier: Apache-2.0
// How the tool fails: exit codes, and what it says on stderr.
#pragma once

#include <attnmux/status.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace attnmux::cli {

enum ExitCode : int {
  kExitOk = 0,
  kExitCheckFailed = 1,  // a check failed, or the machine did (out of memory, a full disk)
  kExitUsage = 2,        // the command line, the environment, a file or the problem is wrong
  kExitCannotRun = 3,    // the backend asked for cannot run here
};

/// The message names the flag, its value and what is accepted.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Something that exists, but not on this machine.
class CannotRunError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

ExitCode exit_code(Code code);
void throw_if_failed(const Status& status);

/// A message of the library without its prefix, "[attention] ".
std::string_view without_prefix(std::string_view message);
/// "attnmux: message" on stderr, without that prefix.
void print_error(std::string_view message);
/// A refusal for a table that already names the backend: the reason alone.
std::string refusal_text(std::string_view message);
/// A remark that is not the answer: on stderr, so that stdout holds nothing but the answer.
void print_note(std::string_view message);

/// The name that is nearest to what was typed; empty where none is near.
template <typename Names>
std::string_view closest(std::string_view typed, const Names& names);
size_t edit_distance(std::string_view a, std::string_view b);

template <typename Names>
std::string_view closest(std::string_view typed, const Names& names) {
  std::string_view best;
  size_t best_distance = typed.size() / 3 + 2;
  for (const std::string_view name : names) {
    const size_t distance = edit_distance(typed, name);
    if (distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace attnmux::cli
