// SPDX-License-Identifier: Apache-2.0
// Backends that come at run time.
#include <attnmux/attnmux_c.h>
#include <dlfcn.h>

#include "api/guard.h"
#include "dispatch/environment.h"
#include "dispatch/registry.h"

using namespace attnmux;

extern "C" {

attnmux_code attnmux_register_backend(const attnmux_backend_desc* backend, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    if (backend == nullptr) return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("backend is a null pointer"));
    return register_backend(*backend, error);
  });
}

attnmux_code attnmux_load_plugin(const char* path, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    if (path == nullptr || path[0] == 0)
      return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("path of the plugin is empty"));
    // Never closed: its kernels stay in the registry.
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      const char* why = dlerror();
      return fail(
          error, ATTNMUX_INVALID_ARGUMENT,
          ATTNMUX_MESSAGE("plugin \"" << path << "\" cannot be loaded: " << (why == nullptr ? "unknown reason" : why)));
    }
    const auto init = reinterpret_cast<attnmux_plugin_init_fn>(dlsym(library, "attnmux_plugin_init"));
    if (init == nullptr) {
      return fail(error, ATTNMUX_INVALID_ARGUMENT,
                  ATTNMUX_MESSAGE("plugin \"" << path << "\" does not export attnmux_plugin_init"));
    }
    attnmux_host host{};
    host.struct_size = sizeof(host);
    host.abi_version = ATTNMUX_ABI_VERSION;
    host.register_backend = attnmux_register_backend;
    attnmux_error why{};
    const attnmux_code code = init(&host, &why);
    if (code == ATTNMUX_OK) return ATTNMUX_OK;
    return fail(error, code,
                ATTNMUX_MESSAGE("plugin \"" << path << "\" failed to start: "
                                            << (why.length == 0 ? "it gave no message" : why.message)));
  });
}

}  // extern "C"
