// SPDX-License-Identifier: Apache-2.0
#include "dispatch/select.h"

#include <atomic>
#include <cstring>

#include "dispatch/dtypes.h"
#include "dispatch/environment.h"
#include "dispatch/features.h"
#include "dispatch/registry.h"
#include "dispatch/scopes.h"

namespace attnmux {
namespace {

constinit std::atomic<uint16_t> process_default_backend{0};

// A name that the environment gave. Plugins may have been loaded since it was read, so it is looked up here.
attnmux_code find_environment_backend(const char* variable, const std::string& name, uint16_t& id,
                                      attnmux_error* error) {
  if (name.empty()) return ATTNMUX_OK;
  id = find_backend(name);
  if (id != 0) return ATTNMUX_OK;
  return fail(error, ATTNMUX_BAD_ENVIRONMENT,
              ATTNMUX_MESSAGE(variable << " is \"" << name << "\", and no plugin with that name is loaded"));
}

attnmux_code check_id(const char* who, uint16_t id, attnmux_error* error) {
  if (id == 0 || backend_row(id) != nullptr) return ATTNMUX_OK;
  return fail(error, ATTNMUX_UNKNOWN_BACKEND,
              ATTNMUX_MESSAGE(who << " is id " << id << ", which does not exist; ids are 1 to " << num_backends()));
}

void write_device(Message& text, const Problem& p) {
  if (p.device_type == ATTNMUX_CPU) {
    text << "cpu";
  } else {
    text << "cuda:" << p.device_id;
  }
}

}  // namespace

const char* chosen_by_name(ChosenBy who) {
  constexpr const char* kNames[] = {"ATTNMUX_FORCE_BACKEND", "call",   "layer", "scope", "process default",
                                    "ATTNMUX_BACKEND",       "default"};
  return kNames[static_cast<int>(who)];
}

const char* accuracy_name(uint8_t accuracy) {
  constexpr const char* kNames[] = {"none", "exact", "16-bit", "quantized", "approximate"};
  return accuracy < 5 ? kNames[accuracy] : "unknown";
}

void set_process_default(uint16_t backend) { process_default_backend.store(backend, std::memory_order_relaxed); }
uint16_t process_default() { return process_default_backend.load(std::memory_order_relaxed); }

attnmux_code read_precedence(const attnmux_options& o, Precedence& levels, attnmux_error* error) {
  const Environment& e = environment();
  ATTNMUX_TRY(check_id("options.backend", o.backend, error));
  ATTNMUX_TRY(check_id("options.layer_backend", o.layer_backend, error));
  ATTNMUX_TRY(find_environment_backend("ATTNMUX_FORCE_BACKEND", e.force_backend, levels.force, error));
  levels.call = o.backend;
  levels.layer = o.layer_backend;
  levels.scope = scope_backend(o.layer_role);
  levels.process_default = process_default();
  // Only where it counts: a plugin's name in ATTNMUX_BACKEND must not fail calls that say what they want.
  if ((levels.call | levels.layer | levels.scope | levels.process_default) == 0) {
    ATTNMUX_TRY(find_environment_backend("ATTNMUX_BACKEND", e.default_backend, levels.environment, error));
  }
  return ATTNMUX_OK;
}

void resolve(const Precedence& levels, Selection& selection) {
  const uint16_t ids[] = {levels.force,           levels.call,       levels.layer, levels.scope,
                          levels.process_default, levels.environment};
  for (int i = 0; i < 6; ++i) {
    if (ids[i] == 0) continue;
    selection.backend = ids[i];
    selection.chosen_by = static_cast<ChosenBy>(i);
    return;
  }
  selection.backend = detail::built_in_id("native");
  selection.chosen_by = ChosenBy::kDefault;
}

bool supports(const Kernel& kernel, const Problem& p, Reason* reason) {
  // First, so that calls on the cpu never start CUDA.
  if (kernel.device_type != p.device_type) {
    refuse(reason, p.device_type == ATTNMUX_CPU ? "tensors are on the cpu" : "tensors are on cuda:%d", p.device_id);
    return false;
  }
  if (kernel.available != nullptr && kernel.available(reason) == 0) return false;
  if ((kernel.dtypes >> p.dtype & 1) == 0) {
    if (reason != nullptr) {
      refuse(reason, "does not take %s; it takes %s", std::string(dtype_name(p.dtype)).c_str(),
             dtype_list(kernel.dtypes).c_str());
    }
    return false;
  }
  if (const uint64_t missing = p.features & ~kernel.features; missing != 0) {
    if (reason != nullptr) {
      FixedText<sizeof(Reason::text)> text;
      const char* separator = "does not support ";
      for (const FeatureRow& row : kFeatures) {
        if ((missing & row.bit) == 0) continue;
        text << separator << row.wording;
        separator = ", ";
      }
      std::memcpy(reason->text, text.c_str(), text.size() + 1);
    }
    return false;
  }
  return kernel.check == nullptr || kernel.check(&p, reason) != 0;
}

bool too_lossy(const BackendRow& row, const Kernel& kernel, const Problem& p, const attnmux_options& o) {
  return row.automatic && kernel.accuracy[p.dtype] > ATTNMUX_16BIT && (o.set & ATTNMUX_ALLOW_LOSSY) == 0;
}

attnmux_code select(const Problem& p, const attnmux_options& o, Selection& selection, attnmux_error* error) {
  Precedence levels;
  ATTNMUX_TRY(read_precedence(o, levels, error));
  resolve(levels, selection);
  const BackendRow& row = *backend_row(selection.backend);
  const Kernel* only = nullptr;
  if (o.kernel != 0) {
    only = kernel_by_id(o.kernel);
    bool belongs = false;
    for (const Kernel* kernel : row.list()) belongs = belongs || kernel == only;
    if (!belongs) {
      Message text;
      text << "options.kernel is " << (only == nullptr ? "not the name of a kernel" : only->name) << "; backend \""
           << row.name << "\" has";
      const char* separator = " ";
      for (const Kernel* kernel : row.list()) {
        text << separator << kernel->name;
        separator = ", ";
      }
      return fail(error, ATTNMUX_INVALID_ARGUMENT, text << (row.num_kernels() == 0 ? " none" : ""));
    }
  }
  for (const Kernel* kernel : row.list()) {
    if (only != nullptr && kernel != only) continue;
    if (!supports(*kernel, p, nullptr) || too_lossy(row, *kernel, p, o)) continue;
    selection.kernel = kernel;
    const Kernel* faster = only == nullptr ? faster_kernel(row, *kernel, p) : nullptr;
    if (faster != nullptr && supports(*faster, p, nullptr) && !too_lossy(row, *faster, p, o)) selection.kernel = faster;
    return ATTNMUX_OK;
  }
  // Nothing runs: say why, kernel by kernel.
  Message text;
  text << "backend \"" << row.name << "\"";
  if (selection.chosen_by != ChosenBy::kCall) text << " (chosen by: " << chosen_by_name(selection.chosen_by) << ")";
  text << " cannot run this on ";
  write_device(text, p);
  text << ": ";
  if (row.num_kernels() == 0) return fail(error, ATTNMUX_UNAVAILABLE, text << row.missing);
  bool any_available = false, any_on_device = false;
  for (const Kernel* kernel : row.list()) any_on_device = any_on_device || kernel->device_type == p.device_type;
  // A reason that several kernels share is said once.
  Reason previous{};
  for (const Kernel* kernel : row.list()) {
    if (only != nullptr && kernel != only) continue;
    // Kernels of another device say nothing of use where the backend has some for this one.
    if (only == nullptr && any_on_device && kernel->device_type != p.device_type) continue;
    Reason reason{};
    any_available = any_available || kernel->available == nullptr || kernel->available(nullptr) != 0;
    if (supports(*kernel, p, &reason)) refuse(&reason, "is below the 16-bit accuracy class; allow_lossy permits it");
    if (previous.text[0] == 0) {
      text << kernel->name;
    } else if (std::strcmp(previous.text, reason.text) == 0) {
      text << ", " << kernel->name;
    } else {
      text << " " << previous.text << "; " << kernel->name;
    }
    previous = reason;
  }
  text << " " << previous.text;
  if (row.instead[0] != 0) text << "; " << row.instead;
  return fail(error, any_available ? ATTNMUX_UNSUPPORTED : ATTNMUX_UNAVAILABLE, text);
}

}  // namespace attnmux
