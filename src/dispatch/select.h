// SPDX-License-Identifier: Apache-2.0
// Second and third hop: which backend, which of its kernels.
#pragma once

#include "dispatch/backends.h"

namespace attnmux {

/// Who chose the backend, in order of precedence.
enum class ChosenBy { kForce, kCall, kLayer, kScope, kProcessDefault, kEnvironment, kDefault };
const char* chosen_by_name(ChosenBy who);

/// What each level of the precedence asks for; 0 where it does not.
struct Precedence {
  uint16_t force = 0, call = 0, layer = 0, scope = 0, process_default = 0, environment = 0;
};

struct Selection {
  uint16_t backend = 0;
  ChosenBy chosen_by = ChosenBy::kDefault;
  const Kernel* kernel = nullptr;
};

/// The levels, on this thread, now.
attnmux_code read_precedence(const attnmux_options& options, Precedence& levels, attnmux_error* error);
/// The highest level that asks for something, else `native`.
void resolve(const Precedence& levels, Selection& selection);

void set_process_default(uint16_t backend);
uint16_t process_default();

/// Does the kernel take the problem? Device, dtype and features by its claims, then what only it knows.
bool supports(const Kernel& kernel, const Problem& problem, Reason* reason);

/// The chosen backend's first kernel that supports the problem. Fails with the reason of each.
attnmux_code select(const Problem& problem, const attnmux_options& options, Selection& selection, attnmux_error* error);

/// Is the kernel below the accuracy that an automatic choice may have?
bool too_lossy(const BackendRow& row, const Kernel& kernel, const Problem& problem, const attnmux_options& options);

const char* accuracy_name(uint8_t accuracy);

}  // namespace attnmux
