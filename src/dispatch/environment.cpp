// SPDX-License-Identifier: Apache-2.0
#include "dispatch/environment.h"

#include <cstdlib>

#include "dispatch/registry.h"
#include "kernels/cpu/isa/cpu_isa.h"

namespace attnmux {
namespace {

void bad_value(Environment& e, const char* name, const char* value, const Message& accepted) {
  if (e.error.code != ATTNMUX_OK) return;
  fail(&e.error, ATTNMUX_BAD_ENVIRONMENT,
       ATTNMUX_MESSAGE(name << " is \"" << value << "\"; accepted are " << accepted.view()));
}

// An unset and an empty variable are the same.
const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr || value[0] == 0 ? nullptr : value;
}

// A name with a dot belongs to a plugin that may be loaded later: it is looked up by each call.
void read_backend(Environment& e, const char* name, std::string& backend) {
  const char* value = variable(name);
  if (value == nullptr) return;
  const std::string_view text = value;
  if (text.find('.') == std::string_view::npos && find_backend(text) == 0) {
    Message names;
    for (size_t i = 0; i < kBackendNames.size(); ++i) names << (i == 0 ? "" : ", ") << kBackendNames[i];
    bad_value(e, name, value, names);
    return;
  }
  backend = text;
}

Environment read() {
  Environment e;
  read_backend(e, "ATTNMUX_BACKEND", e.default_backend);
  read_backend(e, "ATTNMUX_FORCE_BACKEND", e.force_backend);
  if (const char* value = variable("ATTNMUX_MAX_CPU_ISA")) {
    if (const auto isa = cpu_isa_named(value)) {
      set_cpu_isa_cap(*isa);
    } else {
      bad_value(e, "ATTNMUX_MAX_CPU_ISA", value, ATTNMUX_MESSAGE("baseline, avx2, avx512, avx512_bf16, amx"));
    }
  }
  if (const char* value = variable("ATTNMUX_NUM_THREADS")) {
    const std::string_view text = value;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), e.num_threads);
    if (failure != std::errc() || end != text.data() + text.size() || e.num_threads < 1 || e.num_threads > 4096) {
      e.num_threads = 0;
      bad_value(e, "ATTNMUX_NUM_THREADS", value, ATTNMUX_MESSAGE("the numbers 1 to 4096"));
    }
  }
  if (const char* value = variable("ATTNMUX_VERBOSE")) {
    if (std::string_view(value) == "dispatch") {
      e.verbose_dispatch = true;
    } else if (std::string_view(value) != "none") {
      bad_value(e, "ATTNMUX_VERBOSE", value, ATTNMUX_MESSAGE("none, dispatch"));
    }
  }
  // Lengths in host memory are always checked; "sync" waits for the stream and reads those in device memory back.
  if (const char* value = variable("ATTNMUX_CHECK")) {
    e.check_sync = std::string_view(value) == "sync";
    if (std::string_view(value) != "none" && !e.check_sync) {
      bad_value(e, "ATTNMUX_CHECK", value, ATTNMUX_MESSAGE("none, sync"));
    }
  }
  return e;
}

}  // namespace

const Environment& environment() {
  static const Environment& instance = *new Environment(read());  // never destroyed: static destructors may call us
  return instance;
}

}  // namespace attnmux
