// SPDX-License-Identifier: Apache-2.0
// Finds backends and kernels by name and id: the built-in ones and those of plugins. Append-only; nothing is removed.
#pragma once

#include <string_view>

#include "dispatch/backends.h"
#include "dispatch/message.h"

namespace attnmux {

/// Null for 0 and for ids that nobody has.
const BackendRow* backend_row(uint16_t id);
uint16_t num_backends();  // ids are 1 … num_backends()
uint16_t find_backend(std::string_view name);
bool is_plugin(uint16_t id);

/// Fails with the closest names.
attnmux_code find_backend_or_fail(std::string_view name, uint16_t& id, attnmux_error* error);

const Kernel* kernel_by_id(uint16_t id);
uint16_t find_kernel(std::string_view name);

/// Copies the description; the strings and kernels are the registry's own afterwards.
attnmux_code register_backend(const attnmux_backend_desc& desc, attnmux_error* error);

/// Can any kernel of the backend run on this machine? If not, `reason` says what each needs.
bool is_available(const BackendRow& row, Message& reason);
/// The same as an error that names the backend.
attnmux_code check_available(uint16_t id, attnmux_error* error);

}  // namespace attnmux
