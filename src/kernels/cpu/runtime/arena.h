// SPDX-License-Identifier: Apache-2.0
// Workspaces for callers who bring none: cached blocks, handed out without a lock.
#pragma once

#include <attnmux/attnmux_c.h>

#include <cstddef>

namespace attnmux {

inline constexpr size_t kWorkspaceAlignment = 64;

/// A block of at least `bytes`, aligned to kWorkspaceAlignment, back in the cache when this goes out of scope.
class ArenaBlock {
 public:
  explicit ArenaBlock(size_t bytes);
  ~ArenaBlock();
  ArenaBlock(const ArenaBlock&) = delete;
  ArenaBlock& operator=(const ArenaBlock&) = delete;
  /// Null if memory ran out, or if no bytes were asked for.
  void* data() const;

 private:
  struct Block;
  friend void release_cached_blocks();
  static void free_block(Block* block);
  Block* block_ = nullptr;
};

void release_cached_blocks();
void set_arena_allocator(attnmux_allocate allocate, attnmux_deallocate deallocate, void* user);

}  // namespace attnmux
