// SPDX-License-Identifier: Apache-2.0
// ATTNMUX_DESCRIBE_BACKENDS as values: every public name, `auto` and loaded plugins, with their kernels.
#pragma once

#include <attnmux/backend.h>

#include <string>
#include <vector>

#include "attnmux/json_out.h"

namespace attnmux::cli {

struct KernelInfo {
  std::string name, device;
  bool available = false;
  std::string reason;  // why it does not run on this machine
  Json accuracy;       // dtype → class
};

struct BackendInfo {
  Backend backend;
  std::string name, family, promise;
  bool available = false;
  std::string reason;               // why it does not run on this machine
  std::vector<KernelInfo> kernels;  // in order of preference
  Json accuracy;                    // dtype → lowest class that it can pick
  bool plugin = false;

  const KernelInfo* kernel(std::string_view kernel_name) const;
};

std::vector<BackendInfo> backend_table();
const BackendInfo& info(const std::vector<BackendInfo>& table, Backend backend);
/// The accuracy class of a kernel for a dtype; "–" where it has none.
std::string class_of(const BackendInfo& backend, std::string_view kernel, std::string_view dtype);
/// Says on stderr that ATTNMUX_FORCE_BACKEND decided, where it did.
void note_forced_backend();
/// "cpu_flash_{avx512,avx2}, cpu_math": what names share is written once.
std::string brief_list(const std::vector<std::string>& names);

}  // namespace attnmux::cli
