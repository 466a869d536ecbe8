// SPDX-License-Identifier: Apache-2.0
#include "attnmux/json_out.h"

#include <cstdio>

#include "attnmux/errors.h"

namespace attnmux::cli {

void print_json(const Json& document) {
  // File and tensor names may hold any bytes; a replacement character is better than no answer.
  const std::string text = document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
}

Json describe(int32_t topic) {
  std::string text;
  Status status;
  attnmux_describe(
      topic, [](void* user, const char* part, size_t n) { static_cast<std::string*>(user)->append(part, n); }, &text,
      status.c_error());
  throw_if_failed(status);
  return Json::parse(text);
}

}  // namespace attnmux::cli
