// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/runtime/arena.h"

#include <array>
#include <atomic>
#include <new>

namespace attnmux {
namespace {

// Replaced as a whole and never freed, so that a block can always be returned to the allocator it came from. Linked, so
// that leak checkers see that all of them are still held.
struct Allocator {
  attnmux_allocate allocate;
  attnmux_deallocate deallocate;
  void* user;
  const Allocator* before;
};

void* default_allocate(void* /*user*/, int32_t /*device*/, size_t bytes, size_t alignment) {
  return ::operator new(bytes, std::align_val_t(alignment), std::nothrow);
}
void default_deallocate(void* /*user*/, int32_t /*device*/, void* pointer, size_t /*bytes*/) {
  ::operator delete(pointer, std::align_val_t(kWorkspaceAlignment));
}

constexpr Allocator kDefaultAllocator{default_allocate, default_deallocate, nullptr, nullptr};
constinit std::atomic<const Allocator*> allocator{&kDefaultAllocator};
constinit std::atomic<const Allocator*> newest{nullptr};  // of all that were ever set

}  // namespace

struct ArenaBlock::Block {
  void* data;
  size_t bytes;
  const Allocator* from;
};

namespace {
// One block per call that runs at the same time; more than these many calls at once allocate.
constexpr size_t kCached = 16;
constinit std::array<std::atomic<void*>, kCached> cache{};
}  // namespace

void ArenaBlock::free_block(Block* block) {
  if (block == nullptr) return;
  block->from->deallocate(block->from->user, ATTNMUX_CPU, block->data, block->bytes);
  delete block;
}

ArenaBlock::ArenaBlock(size_t bytes) {
  if (bytes == 0) return;
  const Allocator* current = allocator.load(std::memory_order_acquire);
  for (auto& slot : cache) {
    auto* block = static_cast<Block*>(slot.exchange(nullptr, std::memory_order_acq_rel));
    if (block == nullptr) continue;
    if (block->bytes >= bytes && block->from == current) {
      block_ = block;
      return;
    }
    free_block(block);  // too small for what is asked for now
    break;
  }
  auto* block = new (std::nothrow) Block{nullptr, bytes, current};
  if (block == nullptr) return;
  block->data = current->allocate(current->user, ATTNMUX_CPU, bytes, kWorkspaceAlignment);
  if (block->data == nullptr) {
    delete block;
    return;
  }
  block_ = block;
}

ArenaBlock::~ArenaBlock() {
  if (block_ == nullptr) return;
  for (auto& slot : cache) {
    void* empty = nullptr;
    if (slot.compare_exchange_strong(empty, block_, std::memory_order_acq_rel)) return;
  }
  free_block(block_);
}

void* ArenaBlock::data() const { return block_ == nullptr ? nullptr : block_->data; }

void release_cached_blocks() {
  for (auto& slot : cache)
    ArenaBlock::free_block(static_cast<ArenaBlock::Block*>(slot.exchange(nullptr, std::memory_order_acq_rel)));
}

void set_arena_allocator(attnmux_allocate allocate, attnmux_deallocate deallocate, void* user) {
  const Allocator* chosen = &kDefaultAllocator;
  if (allocate != nullptr) {
    auto* fresh = new Allocator{allocate, deallocate, user, newest.load(std::memory_order_relaxed)};
    while (!newest.compare_exchange_weak(fresh->before, fresh, std::memory_order_acq_rel)) {
    }
    chosen = fresh;
  }
  allocator.store(chosen, std::memory_order_release);
  release_cached_blocks();
}

}  // namespace attnmux
