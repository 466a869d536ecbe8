// SPDX-License-Identifier: Apache-2.0
// Scopes: this thread, until the end of the block.
#pragma once

#include <attnmux/backend.h>

namespace attnmux {

/// Calls of this thread use the backend until the scope ends; scopes nest, the innermost that matches wins, and
/// unwinding restores. Backend{} is a scope that changes nothing, so a scope can be conditional.
///
/// Not for coroutines: one that resumes on another thread takes `.backend` or a Plan with it. A scope that is destroyed
/// on another thread still ends on its own, changes nothing on the other, and is reported to the log sink.
class [[nodiscard]] AttentionBackendScope {
 public:
  struct Filter {
    /// Only calls of layers with this role, or below it: "dit" matches "dit.joint". Empty: every call.
    std::string_view role = {};
  };

#if defined(__cpp_exceptions)
  explicit AttentionBackendScope(Backend backend) : AttentionBackendScope(backend, Filter{}) {}
  AttentionBackendScope(Backend backend, Filter filter) {
    Status status;
    attnmux_scope_enter(backend.id(), filter.role.empty() ? nullptr : filter.role.data(), filter.role.size(), &scope_,
                        status.c_error());
    detail::throw_if_failed(status);
  }
#endif
  /// For people who do not throw: look at `status` before going on.
  AttentionBackendScope(Backend backend, Filter filter, Status& status) {
    attnmux_scope_enter(backend.id(), filter.role.empty() ? nullptr : filter.role.data(), filter.role.size(), &scope_,
                        status.c_error());
  }
  ~AttentionBackendScope() { attnmux_scope_leave(scope_); }
  AttentionBackendScope(const AttentionBackendScope&) = delete;
  AttentionBackendScope& operator=(const AttentionBackendScope&) = delete;

 private:
  attnmux_scope scope_{};
};

/// The scopes of a thread as a value: capture with current(), install on a worker with a Guard.
class BackendContext {
 public:
#if defined(__cpp_exceptions)
  static BackendContext current() {
    BackendContext context;
    Status status;
    attnmux_context_capture(&context.context_, status.c_error());
    detail::throw_if_failed(status);
    return context;
  }

  /// Replaces the scopes of this thread until the end of the block.
  class [[nodiscard]] Guard {
   public:
    explicit Guard(const BackendContext& context) {
      Status status;
      attnmux_context_enter(&context.context_, &scope_, status.c_error());
      detail::throw_if_failed(status);
    }
    ~Guard() { attnmux_scope_leave(scope_); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    attnmux_scope scope_{};
  };
#endif

 private:
  attnmux_context context_{sizeof(attnmux_context), 0, {}};
};

}  // namespace attnmux
