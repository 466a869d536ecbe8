// SPDX-License-Identifier: Apache-2.0
#include "attnmux/machine.h"

#include <attnmux/process.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <utility>

#include "attnmux/errors.h"
#include "attnmux/numbers.h"

namespace attnmux::cli {
namespace {

// The rest of the first line that starts with `key`, without the blanks around it.
std::string field(const std::filesystem::path& file, std::string_view key) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (!line.starts_with(key)) continue;
    line.erase(0, key.size());
    const size_t first = line.find_first_not_of(" \t");
    return first == std::string::npos ? "" : line.substr(first, line.find_last_not_of(" \t") - first + 1);
  }
  return {};
}

double kibibytes(const std::string& text) {
  double value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') break;
    value = value * 10 + (c - '0');
  }
  return value * 1024;
}

std::string isa_label(std::string_view isa) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kLabels = {{{"baseline", "no AVX"},
                                                                                     {"avx2", "AVX2"},
                                                                                     {"avx512", "AVX-512"},
                                                                                     {"avx512_bf16", "AVX-512 BF16"},
                                                                                     {"amx", "AMX"}}};
  for (const auto& [name, label] : kLabels) {
    if (name == isa) return std::string(label);
  }
  return std::string(isa);
}

}  // namespace

Json machine() { return describe(ATTNMUX_DESCRIBE_MACHINE); }

std::string isa_name() { return machine().value("isa", "baseline"); }

std::string machine_text() { return counted(num_threads(), "core") + " (" + isa_label(isa_name()) + ")"; }

Memory memory() {
  const std::filesystem::path meminfo = "/proc/meminfo";
  return {kibibytes(field(meminfo, "MemTotal:")), kibibytes(field(meminfo, "MemAvailable:"))};
}

void require_memory(double bytes) {
  const double available = memory().available_bytes;
  if (available > 0 && bytes > available) {
    throw UsageError("the problem needs " + bytes_text(bytes) + " of memory, and " + bytes_text(available) +
                     " are free; take a smaller one");
  }
}

GpuDriver nvidia_driver() {
  GpuDriver driver;
  const std::filesystem::path root = "/proc/driver/nvidia";
  // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Tue …"
  const std::string line = field(root / "version", "NVRM version:");
  for (const std::string_view word : split(line, ' ')) {
    if (!word.empty() && word[0] >= '0' && word[0] <= '9' && word.find('.') != std::string_view::npos) {
      driver.version = word;
      break;
    }
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root / "gpus", error)) {
    driver.gpus.push_back({field(entry.path() / "information", "Model:")});
  }
  return driver;
}

}  // namespace attnmux::cli
