// SPDX-License-Identifier: Apache-2.0
#include "dispatch/message.h"

#include <cstdarg>
#include <cstdio>

#include "kernels/kernel.h"

namespace attnmux {

attnmux_code fail(attnmux_error* error, attnmux_code code, const Message& message) {
  if (error != nullptr) {
    Message whole;
    whole << "[attention] " << message.view();
    error->code = code;
    error->length = static_cast<uint32_t>(whole.size());
    std::memcpy(error->message, whole.c_str(), whole.size() + 1);
    // Names that callers hand in may hold anything; a zero inside would cut the message short for C.
    for (size_t i = 0; i < whole.size(); ++i) {
      if (static_cast<unsigned char>(error->message[i]) < 0x20) error->message[i] = '?';
    }
  }
  return code;
}

void refuse(Reason* reason, const char* format, ...) {
  if (reason == nullptr) return;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(reason->text, sizeof(reason->text), format, arguments);
  va_end(arguments);
}

attnmux_code fail_with(attnmux_error* error, attnmux_code code, const char* format, ...) {
  char text[sizeof(attnmux_error::message)];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return fail(error, code, Message() << std::string_view(text));
}

}  // namespace attnmux
