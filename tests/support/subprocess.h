// SPDX-License-Identifier: Apache-2.0
// Code that needs a process of its own: another environment, a clean exit, a crash. A probe is a function in a test
// program; run_probe starts the program again, which runs the probe instead of its tests.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace attnmux::test {

struct Finished {
  int exit_code = -1;    // 128 + signal if a signal ended it; kTimedOut if it had to be stopped
  std::string returned;  // what the probe returned
  std::string output;    // stdout and stderr
  static constexpr int kTimedOut = 1000;
};

using Variables = std::map<std::string, std::string>;

/// Runs a command with the variables set over this process's, without any ATTNMUX_ variable of its own but the tests'.
Finished run_command(const std::vector<std::string>& given, const Variables& variables, int timeout_seconds = 120);

/// Starts this program again for one probe, under the emulator that ATTNMUX_TEST_EMULATOR names, if any.
Finished run_probe(const std::string& name, const Variables& variables = {});
/// Starts this program again for some of its tests.
Finished run_tests(const std::string& filter, const Variables& variables);

/// Is this program run by an emulator, a sanitizer's runtime, or neither?
bool emulated();
bool sanitized();

struct Probe {
  Probe(const char* name, std::string (*body)());
};

}  // namespace attnmux::test

/// ATTNMUX_PROBE(name) { … return text; }
#define ATTNMUX_PROBE(name)                                                  \
  static std::string probe_##name();                                         \
  static const ::attnmux::test::Probe register_##name(#name, &probe_##name); \
  static std::string probe_##name()
