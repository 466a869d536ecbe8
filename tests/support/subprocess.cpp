// SPDX-License-Identifier: Apache-2.0
#include "support/subprocess.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <sstream>

extern char** environ;

namespace attnmux::test {
namespace {

constexpr const char* kProbeVariable = "ATTNMUX_TEST_PROBE";
constexpr const char* kBegin = "\n<<probe ";
constexpr const char* kEnd = " probe>>\n";

std::map<std::string, std::string (*)()>& probes() {
  static std::map<std::string, std::string (*)()> all;
  return all;
}

// Runs before the first test; in a process that was started for a probe it runs that and exits.
class ProbeRunner : public ::testing::Environment {
 public:
  void SetUp() override {
    const char* name = std::getenv(kProbeVariable);
    if (name == nullptr) return;
    int code = 0;
    std::string text;
    try {
      text = probes().at(name)();
    } catch (const std::exception& e) {
      text = std::string("threw ") + e.what();
      code = 9;
    }
    // Printed as bytes: a probe may have changed the locale.
    std::fputs(kBegin, stdout);
    std::fputs(text.c_str(), stdout);
    std::fputs(kEnd, stdout);
    std::fflush(stdout);
    std::exit(code);
  }
};
[[maybe_unused]] ::testing::Environment* const runner = ::testing::AddGlobalTestEnvironment(new ProbeRunner);

std::string this_program() {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
  return n > 0 ? std::string(path, static_cast<size_t>(n)) : std::string();
}

std::vector<std::string> self_command() {
  std::vector<std::string> command;
  const char* emulator = std::getenv("ATTNMUX_TEST_EMULATOR");
  std::istringstream words(emulator == nullptr ? "" : emulator);
  for (std::string word; words >> word;) command.push_back(word);
  command.push_back(this_program());
  return command;
}

std::vector<std::string> environment_with(const Variables& variables) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    const bool ours = name.starts_with("ATTNMUX_") && !name.starts_with("ATTNMUX_TEST_");
    // A child is a whole run of its own: not a shard.
    if (ours || name.starts_with("GTEST_") || variables.count(name) != 0) continue;
    all.push_back(text);
  }
  for (const auto& [name, value] : variables) all.push_back(name + "=" + value);
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (std::string& text : texts) all.push_back(text.data());
  all.push_back(nullptr);
  return all;
}

}  // namespace

Probe::Probe(const char* name, std::string (*body)()) { probes()[name] = body; }

Finished run_command(const std::vector<std::string>& given, const Variables& variables, int timeout_seconds) {
  Finished result;
  std::vector<std::string> command = given, environment = environment_with(variables);
  std::vector<char*> argv = pointers(command), envp = pointers(environment);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return result;
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    execvpe(argv[0], argv.data(), envp.data());  // an emulator is found by the PATH
    _exit(127);
  }
  close(ends[1]);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(timeout_seconds);
  bool timed_out = child < 0;
  for (char buffer[4096]; !timed_out;) {
    pollfd wait{ends[0], POLLIN, 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    timed_out = left <= 0;
    if (timed_out || poll(&wait, 1, static_cast<int>(left)) <= 0) continue;
    const ssize_t n = read(ends[0], buffer, sizeof(buffer));
    if (n <= 0) break;
    result.output.append(buffer, static_cast<size_t>(n));
  }
  close(ends[0]);
  if (child < 0) return result;
  if (timed_out) kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  result.exit_code = timed_out ? Finished::kTimedOut : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  const size_t begin = result.output.find(kBegin), end = result.output.find(kEnd);
  if (begin != std::string::npos && end != std::string::npos) {
    result.returned = result.output.substr(begin + std::strlen(kBegin), end - begin - std::strlen(kBegin));
  }
  return result;
}

Finished run_probe(const std::string& name, const Variables& variables) {
  Variables all = variables;
  all[kProbeVariable] = name;
  return run_command(self_command(), all);
}

Finished run_tests(const std::string& filter, const Variables& variables) {
  std::vector<std::string> command = self_command();
  command.push_back("--gtest_filter=" + filter);
  return run_command(command, variables, 600);
}

bool emulated() { return std::getenv("ATTNMUX_TEST_EMULATOR") != nullptr; }

bool sanitized() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return true;
#endif
#endif
  return false;
}

}  // namespace attnmux::test
