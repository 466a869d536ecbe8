// SPDX-License-Identifier: Apache-2.0
#include "dispatch/registry.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dispatch/dtypes.h"
#include "dispatch/features.h"
#include "dispatch/message.h"
#include "dispatch/problem_masks.h"

namespace attnmux {
namespace {

constexpr size_t kMaxPlugins = 256;
constexpr size_t kMaxKernels = 1024;
// attnmux_kernel of the first version, which plugins built with it still bring.
constexpr size_t kFirstKernelBytes = offsetof(attnmux_kernel, traits);

// Readers take no lock: entries are written before the count that publishes them, and never change.
struct Registry {
  std::mutex writing;
  std::atomic<uint16_t> num_plugins{0};
  std::array<const BackendRow*, kMaxPlugins> plugins{};
  std::atomic<uint16_t> num_kernels{0};
  std::array<const Kernel*, kMaxKernels> kernels{};

  Registry() {
    for (const BackendRow& row : kBackends) {
      for (const Kernel* kernel : row.list()) add_kernel(kernel);
    }
  }
  void add_kernel(const Kernel* kernel) {
    const uint16_t n = num_kernels.load(std::memory_order_relaxed);
    if (std::find(kernels.begin(), kernels.begin() + n, kernel) != kernels.begin() + n) return;
    kernels[n] = kernel;
    num_kernels.store(n + 1, std::memory_order_release);
  }
};

// Never destroyed: a static destructor of the program may still call attention().
Registry& registry() {
  static Registry& instance = *new Registry;
  return instance;
}

// Levenshtein's edit distance, for the suggestion.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitution = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitution});
    }
  }
  return row[b.size()];
}

// What a plugin hands over, kept for the rest of the process.
struct OwnedBackend {
  std::string name, promise;
  std::vector<std::string> kernel_names;
  std::vector<Kernel> kernels;
  BackendRow row{};
};

attnmux_code check_kernel(const attnmux_kernel& kernel, size_t index, attnmux_error* error) {
  const auto wrong = [&](const Message& what) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("kernels[" << index << "]" << what.view()));
  };
  if (kernel.name == nullptr || kernel.name[0] == 0) return wrong(ATTNMUX_MESSAGE(".name is empty"));
  if (kernel.run == nullptr) return wrong(ATTNMUX_MESSAGE(" (" << kernel.name << ").run is null"));
  if ((kernel.prepare == nullptr) != (kernel.release == nullptr)) {
    return wrong(ATTNMUX_MESSAGE(" (" << kernel.name << ") has one of prepare and release; both are needed"));
  }
  if (kernel.device_type != ATTNMUX_CPU && kernel.device_type != ATTNMUX_CUDA) {
    return wrong(ATTNMUX_MESSAGE(" (" << kernel.name << ").device_type is " << kernel.device_type
                                      << "; accepted are 1 (cpu) and 2 (cuda)"));
  }
  for (int32_t dtype = 1; dtype < ATTNMUX_DTYPE_COUNT; ++dtype) {
    const bool claimed = (kernel.dtypes >> dtype & 1) != 0;
    if (claimed && (kernel.accuracy[dtype] < ATTNMUX_EXACT || kernel.accuracy[dtype] > ATTNMUX_APPROXIMATE)) {
      return wrong(ATTNMUX_MESSAGE(" (" << kernel.name << ").accuracy[" << dtype << "] is " << kernel.accuracy[dtype]
                                        << " for " << dtype_name(dtype)
                                        << "; accepted are 1 (exact) to 4 (approximate)"));
    }
  }
  if (find_kernel(kernel.name) != 0)
    return wrong(ATTNMUX_MESSAGE(".name is \"" << kernel.name << "\", which is taken"));
  return ATTNMUX_OK;
}

}  // namespace

uint16_t num_backends() {
  return static_cast<uint16_t>(kBackendNames.size() + registry().num_plugins.load(std::memory_order_acquire));
}

const BackendRow* backend_row(uint16_t id) {
  if (id == 0) return nullptr;
  if (id <= kBackendNames.size()) return &kBackends[id - 1];
  const size_t plugin = id - kBackendNames.size() - 1;
  return plugin < registry().num_plugins.load(std::memory_order_acquire) ? registry().plugins[plugin] : nullptr;
}

bool is_plugin(uint16_t id) { return id > kBackendNames.size(); }

uint16_t find_backend(std::string_view name) {
  for (uint16_t id = 1; id <= num_backends(); ++id) {
    if (name == backend_row(id)->name) return id;
  }
  return 0;
}

attnmux_code find_backend_or_fail(std::string_view name, uint16_t& id, attnmux_error* error) {
  id = find_backend(name);
  if (id != 0) return ATTNMUX_OK;
  // The closest three; a leading underscore says little, so it does not count.
  const auto bare = [](std::string_view text) { return text.starts_with('_') ? text.substr(1) : text; };
  std::vector<std::pair<size_t, uint16_t>> ranked;
  for (uint16_t other = 1; other <= num_backends(); ++other) {
    ranked.emplace_back(edit_distance(bare(name.substr(0, 64)), bare(backend_row(other)->name)), other);
  }
  std::sort(ranked.begin(), ranked.end());
  Message text;
  text << "backend \"" << name.substr(0, 64) << "\" does not exist; the closest names are ";
  for (size_t i = 0; i < 3; ++i) text << (i == 0 ? "\"" : "\", \"") << backend_row(ranked[i].second)->name;
  text << "\" (attnmux list shows all)";
  return fail(error, ATTNMUX_UNKNOWN_BACKEND, text);
}

const Kernel* kernel_by_id(uint16_t id) {
  return id == 0 || id > registry().num_kernels.load(std::memory_order_acquire) ? nullptr : registry().kernels[id - 1];
}

uint16_t find_kernel(std::string_view name) {
  const uint16_t n = registry().num_kernels.load(std::memory_order_acquire);
  for (uint16_t id = 1; id <= n; ++id) {
    if (name == registry().kernels[id - 1]->name) return id;
  }
  return 0;
}

attnmux_code register_backend(const attnmux_backend_desc& desc, attnmux_error* error) {
  ATTNMUX_TRY(check_struct("backend", &desc, desc.struct_size, sizeof(desc), error));
  const auto wrong = [&](const Message& what) { return fail(error, ATTNMUX_INVALID_ARGUMENT, what); };
  const std::string_view name = desc.name == nullptr ? "" : desc.name;
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos || dot == 0 || dot + 1 == name.size() || name.size() > 63) {
    return wrong(ATTNMUX_MESSAGE(
        "backend.name is \""
        << name
        << "\"; the name of a plugin's backend has a dot inside, as in \"acme.flash\", and at most 63 characters"));
  }
  if (desc.num_kernels == 0 || desc.num_kernels > kMaxKernelsPerBackend || desc.kernels == nullptr) {
    return wrong(ATTNMUX_MESSAGE("backend.num_kernels is " << desc.num_kernels << "; accepted is 1 to "
                                                           << kMaxKernelsPerBackend));
  }
  Registry& r = registry();
  const std::lock_guard lock(r.writing);
  if (find_backend(name) != 0) return wrong(ATTNMUX_MESSAGE("backend.name is \"" << name << "\", which is taken"));
  const uint16_t index = r.num_plugins.load(std::memory_order_relaxed);
  if (index == kMaxPlugins || r.num_kernels.load() + desc.num_kernels > kMaxKernels) {
    return wrong(ATTNMUX_MESSAGE("backend \"" << name << "\" is one too many: the registry holds " << kMaxPlugins
                                              << " backends of plugins"));
  }
  auto owned = std::make_unique<OwnedBackend>();
  owned->name = name;
  owned->promise = desc.promise == nullptr ? "" : desc.promise;
  // Kernels of another size would make this array's stride wrong, so the size is taken from the first.
  const uint32_t stride = desc.kernels[0].struct_size;
  for (uint32_t i = 0; i < desc.num_kernels; ++i) {
    const char* given = reinterpret_cast<const char*>(desc.kernels) + size_t{i} * stride;
    uint32_t size = 0;
    std::memcpy(&size, given, sizeof(size));
    ATTNMUX_TRY(check_struct("kernel", given, size, sizeof(attnmux_kernel), error, kFirstKernelBytes));
    attnmux_kernel kernel{};
    std::memcpy(&kernel, given, std::min<size_t>(size, sizeof(kernel)));
    ATTNMUX_TRY(check_kernel(kernel, i, error));
    for (const std::string& before : owned->kernel_names) {
      if (before == kernel.name)
        return wrong(ATTNMUX_MESSAGE("kernels[" << i << "].name is \"" << kernel.name
                                                << "\", as that of another kernel of the backend"));
    }
    owned->kernels.push_back(kernel);
    owned->kernel_names.emplace_back(kernel.name);
  }
  for (uint32_t i = 0; i < desc.num_kernels; ++i) {
    Kernel& kernel = owned->kernels[i];
    kernel.name = owned->kernel_names[i].c_str();
    kernel.features &= kAllFeatures;  // bits of a newer version mean nothing here
    owned->row.kernels[i] = &kernel;
  }
  owned->row.name = owned->name.c_str();
  owned->row.family = "plugin";
  owned->row.promise = owned->promise.c_str();
  owned->row.missing = "";
  const OwnedBackend* kept = owned.release();
  for (const Kernel& kernel : kept->kernels) r.add_kernel(&kernel);
  r.plugins[index] = &kept->row;
  r.num_plugins.store(index + 1, std::memory_order_release);
  return ATTNMUX_OK;
}

bool is_available(const BackendRow& row, Message& reason) {
  if (row.num_kernels() == 0) {
    reason << row.missing;
    return false;
  }
  Message reasons;
  const char* separator = "";
  for (const Kernel* kernel : row.list()) {
    Reason why{};
    if (kernel->available == nullptr || kernel->available(&why) != 0) return true;
    reasons << separator << kernel->name << " " << why.text;
    separator = "; ";
  }
  reason << reasons.view();
  if (row.instead[0] != 0) reason << "; " << row.instead;
  return false;
}

attnmux_code check_available(uint16_t id, attnmux_error* error) {
  const BackendRow* row = backend_row(id);
  if (row == nullptr) {
    return fail(error, ATTNMUX_UNKNOWN_BACKEND,
                ATTNMUX_MESSAGE("backend id " << id << " does not exist; ids are 1 to " << num_backends()));
  }
  Message reason;
  if (is_available(*row, reason)) return ATTNMUX_OK;
  return fail(error, ATTNMUX_UNAVAILABLE,
              ATTNMUX_MESSAGE("backend \"" << row->name << "\" cannot run here: " << reason.view()));
}

}  // namespace attnmux
