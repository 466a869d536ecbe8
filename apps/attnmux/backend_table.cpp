// SPDX-License-Identifier: Apache-2.0
#include "attnmux/backend_table.h"

#include "attnmux/errors.h"

namespace attnmux::cli {
namespace {

// "cpu_flash" of "cpu_flash_avx2", and of "cpu_flash_avx512_bf16": device and algorithm.
std::string_view stem(std::string_view name) {
  const size_t first = name.find('_');
  if (first == std::string_view::npos) return name;
  const size_t second = name.find('_', first + 1);
  return name.substr(0, second);
}

}  // namespace

const KernelInfo* BackendInfo::kernel(std::string_view kernel_name) const {
  for (const KernelInfo& k : kernels) {
    if (k.name == kernel_name) return &k;
  }
  return nullptr;
}

std::vector<BackendInfo> backend_table() {
  std::vector<BackendInfo> table;
  for (const Json& row : describe(ATTNMUX_DESCRIBE_BACKENDS)) {
    BackendInfo b;
    b.name = row.at("name");
    b.backend = Backend::from_id(row.at("id"));
    b.family = row.at("family");
    b.promise = row.at("promise");
    b.available = row.at("available");
    b.reason = refusal_text(row.at("reason").get<std::string>());
    b.accuracy = row.at("accuracy");
    b.plugin = row.at("plugin");
    for (const Json& k : row.at("kernel_details")) {
      b.kernels.push_back({k.at("name"), k.at("device"), k.at("available"), k.at("reason"), k.at("accuracy")});
    }
    table.push_back(std::move(b));
  }
  return table;
}

const BackendInfo& info(const std::vector<BackendInfo>& table, Backend backend) {
  for (const BackendInfo& b : table) {
    if (b.backend == backend) return b;
  }
  throw UsageError("no backend has the id " + std::to_string(backend.id()));
}

std::string class_of(const BackendInfo& backend, std::string_view kernel, std::string_view dtype) {
  const KernelInfo* k = backend.kernel(kernel);
  return k == nullptr ? "–" : k->accuracy.value(std::string(dtype), "–");
}

void note_forced_backend() {
  uint16_t forced = 0;
  if (attnmux_forced_backend(&forced, nullptr) == ATTNMUX_OK && forced != 0) {
    print_note("ATTNMUX_FORCE_BACKEND decides: every call ran " + std::string(Backend::from_id(forced).name()));
  }
}

std::string brief_list(const std::vector<std::string>& names) {
  std::string list;
  for (size_t i = 0; i < names.size();) {
    const std::string_view shared = stem(names[i]);
    size_t end = i + 1;
    while (end < names.size() && stem(names[end]) == shared) ++end;
    list += i == 0 ? "" : ", ";
    if (end - i == 1) {
      list += names[i];
    } else {
      list += std::string(shared) + "_{";
      for (size_t j = i; j < end; ++j) {
        if (j > i) list += ',';
        list += names[j].substr(std::min(names[j].size(), shared.size() + 1));
      }
      list += '}';
    }
    i = end;
  }
  return list;
}

}  // namespace attnmux::cli
