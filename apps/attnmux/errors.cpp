// SPDX-License-Identifier: Apache-2.0
#include "attnmux/errors.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "attnmux/table.h"

namespace attnmux::cli {

ExitCode exit_code(Code code) {
  switch (code) {
    case Code::kOk:
      return kExitOk;
    case Code::kInvalidArgument:
    case Code::kUnknownBackend:
    case Code::kBadEnvironment:
      return kExitUsage;
    case Code::kUnavailable:
    case Code::kUnsupported:
      return kExitCannotRun;
    case Code::kOutOfMemory:
    case Code::kDeviceError:
    case Code::kExecutorFailed:
    case Code::kInternal:
      break;
  }
  return kExitCheckFailed;
}

void throw_if_failed(const Status& status) {
  if (!status) throw Error(status);
}

std::string_view without_prefix(std::string_view message) {
  constexpr std::string_view kPrefix = "[attention] ";
  if (message.starts_with(kPrefix)) message.remove_prefix(kPrefix.size());
  return message;
}

void print_error(std::string_view message) {
  const std::string line = styled("attnmux:", Style::kBad, stderr) + " " + std::string(without_prefix(message)) + "\n";
  std::fputs(line.c_str(), stderr);
}

std::string refusal_text(std::string_view message) {
  message = without_prefix(message);
  // 'backend "flash" (chosen by: call) cannot run this on cpu: it needs …'
  const size_t verb = message.starts_with("backend \"") ? message.find(" cannot run ") : std::string_view::npos;
  const size_t colon = verb == std::string_view::npos ? verb : message.find(": ", verb);
  if (colon != std::string_view::npos) message.remove_prefix(colon + 2);
  return std::string(message);
}

void print_note(std::string_view message) {
  const std::string line = styled(message, Style::kDim, stderr) + "\n";
  std::fputs(line.c_str(), stderr);
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace attnmux::cli
