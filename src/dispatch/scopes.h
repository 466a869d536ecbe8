// SPDX-License-Identifier: Apache-2.0
// The scopes of each thread.
#pragma once

#include <attnmux/attnmux_c.h>

#include <string_view>

#include "dispatch/message.h"

namespace attnmux {

/// The backend of the innermost scope of this thread that matches the role; 0 if none does.
uint16_t scope_backend(const char* role);

attnmux_code enter_scope(uint16_t backend, std::string_view role, attnmux_scope& scope, attnmux_error* error);
attnmux_code capture_context(attnmux_context& context, attnmux_error* error);
attnmux_code enter_context(const attnmux_context& context, attnmux_scope& scope, attnmux_error* error);
/// Ends the scope on the thread that entered it, from whichever thread this is called.
void leave_scope(attnmux_scope scope);

}  // namespace attnmux
