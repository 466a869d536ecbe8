// SPDX-License-Identifier: Apache-2.0
// A scope is an entry in its thread's stack plus a slot in a process-wide table. The slot holds a generation: odd while
// the scope lives, bumped when it is left. An entry counts only while its slot has the entry's generation, so a scope
// that is destroyed on another thread ends on its own one too, without anybody touching another thread's stack.
#include "dispatch/scopes.h"

#include <atomic>
#include <cstring>
#include <utility>

#include "api/log.h"
#include "dispatch/registry.h"

namespace attnmux {
namespace {

constexpr uint32_t kMaxScopes = 8192;  // alive at once in the process
constexpr int32_t kMaxDepth = 64;      // entries of one thread

constinit std::atomic<uint32_t> slots[kMaxScopes];
constinit std::atomic<uint32_t> next_slot{0};

struct Entry {
  attnmux_scope scope;
  uint16_t backend;
  bool barrier;  // an installed context: what lies outside does not count
  char role[16];
};

struct Stack {
  Entry entries[kMaxDepth];
  int32_t depth;
};

// Plain data without a constructor: reading it costs one instruction. It is read in this file only; compilers cache the
// address of a thread-local across co_await.
constinit thread_local Stack stack{};

bool alive(const attnmux_scope& scope) { return slots[scope.slot].load(std::memory_order_acquire) == scope.generation; }

bool matches(const char* filter, const char* role) {
  const size_t n = std::strlen(filter);
  return n == 0 || (std::strncmp(filter, role, n) == 0 && (role[n] == 0 || role[n] == '.'));
}

// Entries that were left on another thread stay until the stack is next changed here.
void drop_dead(Stack& s) {
  int32_t kept = 0;
  for (int32_t i = 0; i < s.depth; ++i) {
    if (alive(s.entries[i].scope)) s.entries[kept++] = s.entries[i];
  }
  s.depth = kept;
}

attnmux_code take_slot(attnmux_scope& scope, attnmux_error* error) {
  const uint32_t start = next_slot.fetch_add(1, std::memory_order_relaxed);
  for (uint32_t i = 0; i < kMaxScopes; ++i) {
    const uint32_t slot = (start + i) % kMaxScopes;
    uint32_t generation = slots[slot].load(std::memory_order_relaxed);
    if ((generation & 1) == 0 &&
        slots[slot].compare_exchange_strong(generation, generation + 1, std::memory_order_acq_rel)) {
      scope = {slot, generation + 1};
      return ATTNMUX_OK;
    }
  }
  return fail(error, ATTNMUX_INVALID_ARGUMENT,
              ATTNMUX_MESSAGE("scope: " << kMaxScopes << " scopes are alive in this process, which is the limit"));
}

attnmux_code check_depth(int32_t more, attnmux_error* error) {
  drop_dead(stack);
  if (stack.depth + more <= kMaxDepth) return ATTNMUX_OK;
  return fail(error, ATTNMUX_INVALID_ARGUMENT,
              ATTNMUX_MESSAGE("scope: " << stack.depth << " scopes are nested on this thread; " << kMaxDepth
                                        << " is the limit"));
}

void push(const attnmux_scope& scope, uint16_t backend, bool barrier, std::string_view role) {
  Entry& e = stack.entries[stack.depth++];
  e = Entry{scope, backend, barrier, {}};
  role.copy(e.role, sizeof(e.role) - 1);
}

// Runs visit(entry) from the innermost entry outwards until it returns false.
template <typename Visit>
void walk(Visit visit) {
  const Stack& s = stack;
  for (int32_t i = s.depth - 1; i >= 0; --i) {
    const Entry& e = s.entries[i];
    if (!alive(e.scope)) continue;
    if (e.barrier || !visit(e)) return;
  }
}

}  // namespace

uint16_t scope_backend(const char* role) {
  uint16_t found = 0;
  walk([&](const Entry& e) {
    if (e.backend != 0 && matches(e.role, role)) found = e.backend;
    return found == 0;
  });
  return found;
}

attnmux_code enter_scope(uint16_t backend, std::string_view role, attnmux_scope& scope, attnmux_error* error) {
  if (role.size() >= sizeof(Entry::role)) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("scope.role is \"" << role << "\"; a role has at most " << sizeof(Entry::role) - 1
                                                   << " characters"));
  }
  ATTNMUX_TRY(check_depth(1, error));
  ATTNMUX_TRY(take_slot(scope, error));
  push(scope, backend, false, role);
  return ATTNMUX_OK;
}

attnmux_code capture_context(attnmux_context& context, attnmux_error* error) {
  const uint32_t size = context.struct_size;
  context = attnmux_context{};
  context.struct_size = size;
  constexpr uint32_t kRoom = sizeof(context.entries) / sizeof(context.entries[0]);
  bool full = false;
  walk([&](const Entry& e) {
    // Of two scopes with one filter only the inner one can ever match.
    bool shadowed = e.backend == 0;
    for (uint32_t i = 0; i < context.count; ++i)
      shadowed = shadowed || std::strcmp(context.entries[i].role, e.role) == 0;
    if (shadowed) return true;
    if (context.count == kRoom) {
      full = true;
      return false;
    }
    context.entries[context.count].backend = e.backend;
    std::memcpy(context.entries[context.count++].role, e.role, sizeof(e.role));
    return e.role[0] != 0;  // nothing outside a scope without a filter can match
  });
  if (full) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("context: more than " << kRoom << " scopes with different roles"));
  }
  for (uint32_t i = 0; i < context.count / 2; ++i)
    std::swap(context.entries[i], context.entries[context.count - 1 - i]);
  return ATTNMUX_OK;
}

attnmux_code enter_context(const attnmux_context& context, attnmux_scope& scope, attnmux_error* error) {
  constexpr uint32_t kRoom = sizeof(context.entries) / sizeof(context.entries[0]);
  if (context.struct_size < sizeof(context) || context.count > kRoom) {
    return fail(
        error, ATTNMUX_INVALID_ARGUMENT,
        ATTNMUX_MESSAGE("context has struct_size " << context.struct_size << " and count " << context.count
                                                   << "; only what attnmux_context_capture filled is accepted"));
  }
  for (uint32_t i = 0; i < context.count; ++i) {
    if (context.entries[i].backend != 0) ATTNMUX_TRY(check_available(context.entries[i].backend, error));
  }
  ATTNMUX_TRY(check_depth(static_cast<int32_t>(context.count) + 1, error));
  ATTNMUX_TRY(take_slot(scope, error));
  push(scope, 0, true, "");
  for (uint32_t i = 0; i < context.count; ++i) {
    const auto& e = context.entries[i];
    push(scope, e.backend, false, std::string_view(e.role, strnlen(e.role, sizeof(e.role) - 1)));
  }
  return ATTNMUX_OK;
}

void leave_scope(attnmux_scope scope) {
  if ((scope.generation & 1) == 0 || scope.slot >= kMaxScopes) return;  // a scope that was never entered
  bool here = false;
  for (int32_t i = 0; i < stack.depth; ++i) {
    here = here || (stack.entries[i].scope.slot == scope.slot && stack.entries[i].scope.generation == scope.generation);
  }
  uint32_t generation = scope.generation;
  if (!slots[scope.slot].compare_exchange_strong(generation, generation + 1, std::memory_order_acq_rel))
    return;  // left before
  if (here) {
    drop_dead(stack);
  } else {
    log_line(
        "[attention] an AttentionBackendScope was destroyed on another thread than it was made on; it has ended on its "
        "own thread, and nothing changed on this one");
  }
}

}  // namespace attnmux
