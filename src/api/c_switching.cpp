// SPDX-License-Identifier: Apache-2.0
// The C ABI for names, switching and process-wide settings.
#include <attnmux/attnmux_c.h>

#include "api/guard.h"
#include "api/log.h"
#include "dispatch/environment.h"
#include "dispatch/registry.h"
#include "dispatch/scopes.h"
#include "dispatch/select.h"
#include "kernels/cpu/runtime/arena.h"
#include "kernels/cpu/runtime/thread_pool.h"
#include "kernels/cuda/runtime/pool.h"

using namespace attnmux;

namespace {

std::string_view view(const char* text, size_t length) {
  return text == nullptr ? std::string_view{} : std::string_view(text, length);
}

attnmux_code check_backend(uint16_t backend, attnmux_error* error) {
  return backend == 0 ? ATTNMUX_OK : check_available(backend, error);
}

}  // namespace

extern "C" {

uint16_t attnmux_backend_find(const char* name, size_t length) { return find_backend(view(name, length)); }

const char* attnmux_backend_name(uint16_t backend) {
  const BackendRow* row = backend_row(backend);
  return row == nullptr ? nullptr : row->name;
}

attnmux_code attnmux_backend_named(const char* name, size_t length, uint16_t* backend, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    if (backend == nullptr) return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("backend is a null pointer"));
    return find_backend_or_fail(view(name, length), *backend, error);
  });
}

attnmux_code attnmux_backend_available(uint16_t backend, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    return check_available(backend, error);
  });
}

uint16_t attnmux_kernel_find(const char* name, size_t length) { return find_kernel(view(name, length)); }

attnmux_code attnmux_set_default_backend(uint16_t backend, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    ATTNMUX_TRY(check_backend(backend, error));
    set_process_default(backend);
    return ATTNMUX_OK;
  });
}

attnmux_code attnmux_default_backend(uint16_t* backend, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    if (backend == nullptr) return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("backend is a null pointer"));
    *backend = process_default();
    if (*backend == 0) {
      const std::string& name = environment().default_backend;
      return find_backend_or_fail(name.empty() ? "native" : name, *backend, error);
    }
    return ATTNMUX_OK;
  });
}

attnmux_code attnmux_forced_backend(uint16_t* backend, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    if (backend == nullptr) return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("backend is a null pointer"));
    const std::string& name = environment().force_backend;
    *backend = 0;
    return name.empty() ? ATTNMUX_OK : find_backend_or_fail(name, *backend, error);
  });
}

attnmux_code attnmux_scope_enter(uint16_t backend, const char* role, size_t role_length, attnmux_scope* scope,
                                 attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    if (scope == nullptr) return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("scope is a null pointer"));
    *scope = attnmux_scope{};
    ATTNMUX_TRY(check_environment(error));
    ATTNMUX_TRY(check_backend(backend, error));
    return enter_scope(backend, view(role, role_length), *scope, error);
  });
}

void attnmux_scope_leave(attnmux_scope scope) { leave_scope(scope); }

attnmux_code attnmux_context_capture(attnmux_context* context, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    if (context == nullptr || context->struct_size < sizeof(*context)) {
      return fail(error, ATTNMUX_INVALID_ARGUMENT,
                  ATTNMUX_MESSAGE("context is null, or its struct_size is not sizeof(attnmux_context), "
                                  << sizeof(attnmux_context)));
    }
    return capture_context(*context, error);
  });
}

attnmux_code attnmux_context_enter(const attnmux_context* context, attnmux_scope* scope, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    if (context == nullptr || scope == nullptr)
      return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("context or scope is a null pointer"));
    *scope = attnmux_scope{};
    return enter_context(*context, *scope, error);
  });
}

attnmux_code attnmux_check_environment(attnmux_error* error) {
  return guarded(error, [&] { return check_environment(error); });
}

attnmux_code attnmux_set_num_threads(int32_t num_threads, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    if (num_threads < 0 || num_threads > 4096) {
      return fail(error, ATTNMUX_INVALID_ARGUMENT,
                  ATTNMUX_MESSAGE("num_threads is " << num_threads << "; accepted is 0 (all cores) to 4096"));
    }
    set_num_pool_threads(num_threads);
    return ATTNMUX_OK;
  });
}

attnmux_code attnmux_num_threads(int32_t* num_threads, attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    ATTNMUX_TRY(check_environment(error));
    if (num_threads == nullptr)
      return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("num_threads is a null pointer"));
    *num_threads = num_pool_threads();
    return ATTNMUX_OK;
  });
}

void attnmux_release_workspace(void) {
  release_cached_blocks();
  trim_pools();
}

void attnmux_set_log_sink(attnmux_log_sink sink, void* user) { set_log_sink_raw(sink, user); }

attnmux_code attnmux_set_allocator(attnmux_allocate allocate, attnmux_deallocate deallocate, void* user,
                                   attnmux_error* error) {
  return guarded(error, [&]() -> attnmux_code {
    if ((allocate == nullptr) != (deallocate == nullptr)) {
      return fail(error, ATTNMUX_INVALID_ARGUMENT,
                  ATTNMUX_MESSAGE((allocate == nullptr ? "allocate" : "deallocate")
                                  << " is null; give both functions, or neither"));
    }
    set_arena_allocator(allocate, deallocate, user);
    return ATTNMUX_OK;
  });
}

}  // extern "C"
