// SPDX-License-Identifier: Apache-2.0
// Where the library says things: a settable sink, stderr by default. It says nothing unless asked to.
#pragma once

#include <attnmux/attnmux_c.h>

#include <string_view>

namespace attnmux {

void set_log_sink_raw(attnmux_log_sink function, void* user);
/// One line, without its newline.
void log_line(std::string_view line);

}  // namespace attnmux
