// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <cstring>
#include <fstream>

#include "kernels/cpu/isa/cpu_isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace attnmux {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == std::string::npos ? std::string() : text.substr(begin, end - begin + 1);
}

#if defined(__x86_64__)

// Three leaves of CPUID hold 48 characters.
std::string brand() {
  constexpr uint32_t kFirst = 0x80000002, kLast = 0x80000004;
  if (static_cast<uint32_t>(__get_cpuid_max(0x80000000, nullptr)) < kLast) return {};
  char text[49] = {};
  for (uint32_t leaf = kFirst; leaf <= kLast; ++leaf) {
    uint32_t words[4] = {};
    __get_cpuid(leaf, &words[0], &words[1], &words[2], &words[3]);
    std::memcpy(text + 16 * (leaf - kFirst), words, sizeof(words));
  }
  return trimmed(text);
}

#else

std::string brand() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return trimmed(line.substr(line.find(':') + 1));
  }
  return {};
}

#endif

// "48K", "1024K", "32M"
int64_t bytes_of(const std::string& size) {
  int64_t value = 0;
  const auto [end, failure] = std::from_chars(size.data(), size.data() + size.size(), value);
  if (failure != std::errc()) return 0;
  const char unit = end == size.data() + size.size() ? ' ' : *end;
  return unit == 'K' ? value << 10 : unit == 'M' ? value << 20 : unit == 'G' ? value << 30 : value;
}

}  // namespace

CpuDescription describe_cpu() {
  CpuDescription cpu{brand(), {}};
  for (int index = 0; index < 16; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    const int64_t level = bytes_of(first_line(folder + "level"));
    if (level == 0) break;
    cpu.caches.push_back({static_cast<int>(level), first_line(folder + "type"), bytes_of(first_line(folder + "size"))});
  }
  return cpu;
}

}  // namespace attnmux
