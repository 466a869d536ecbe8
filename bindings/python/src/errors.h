// SPDX-License-Identifier: Apache-2.0
// How the module fails: attnmux.Error and its subclasses, made by attnmux/_errors.py from a code and a message.
#pragma once

#include <attnmux/attnmux_c.h>
#include <nanobind/nanobind.h>

#include <string>

namespace attnmux::python {

/// Throws the Python exception for a code and a message. Needs the GIL.
[[noreturn]] void raise(attnmux_code code, const std::string& message);

/// Throws InvalidArgumentError: "[attention] " and the message.
[[noreturn]] void raise_invalid(const std::string& message);

/// As raise_invalid, while a Python exception is set, which becomes its cause.
[[noreturn]] void raise_invalid_from_current(const std::string& message);

inline void check(attnmux_code code, const attnmux_error& error) {
  if (code != ATTNMUX_OK) raise(code, std::string(error.message, error.length));
}

}  // namespace attnmux::python
