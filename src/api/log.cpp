// SPDX-License-Identifier: Apache-2.0
#include "api/log.h"

#include <cstdio>
#include <mutex>

namespace attnmux {
namespace {

struct Sink {
  std::mutex changing;
  attnmux_log_sink function = nullptr;
  void* user = nullptr;
};

Sink& sink() {
  static Sink& instance = *new Sink;
  return instance;
}

}  // namespace

void set_log_sink_raw(attnmux_log_sink function, void* user) {
  const std::lock_guard lock(sink().changing);
  sink().function = function;
  sink().user = user;
}

void log_line(std::string_view line) {
  attnmux_log_sink function = nullptr;
  void* user = nullptr;
  {
    const std::lock_guard lock(sink().changing);
    function = sink().function;
    user = sink().user;
  }
  if (function != nullptr) {
    function(user, line.data(), line.size());
  } else {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
  }
}

}  // namespace attnmux
