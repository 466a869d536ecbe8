// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/flash/sm90_stream.h"

namespace attnmux {
namespace {

constexpr int64_t kAlignment = 128;

bool masks_keys(const Problem& p) { return p.seqlen_kv > 0 && (given(p.key_padding) || given(p.dense_mask)); }

FlashSm90Keys layout_of(const Problem& p, const FlashSm90StepShape& shape) {
  const auto differs = [&](int i) { return given(p.dense_mask) && p.dense_mask.strides[i] != 0; };
  const int64_t batches = differs(0) || given(p.key_padding) ? p.batch : 1, heads = differs(1) ? p.num_heads_q : 1;
  const int64_t tiles = differs(2) ? ceil_div(p.seqlen_q, shape.rows) : 1;
  FlashSm90Keys keys{};
  keys.items = batches * heads * tiles;
  keys.batch_items = batches > 1 ? heads * tiles : 0;
  keys.head_items = heads > 1 ? tiles : 0;
  keys.tile_items = tiles > 1 ? 1 : 0;
  keys.steps = static_cast<int32_t>(ceil_div(p.seqlen_kv, shape.keys));
  keys.rows = static_cast<int32_t>(differs(2) ? shape.rows : 1);
  keys.words = flash_sm90_mask_words(shape.keys);
  return keys;
}

struct Sizes {
  int64_t queue, states, bits;
};

Sizes sizes_of(const Problem& p, const FlashSm90StepShape& shape) {
  Sizes sizes{};
  if (given(p.cu_seqlens_q)) {
    sizes.queue = kAlignment + round_up(4 * (2 * p.batch + 1), kAlignment);
  } else if (masks_keys(p)) {
    sizes.queue = kAlignment;
  }
  if (masks_keys(p)) {
    const FlashSm90Keys keys = layout_of(p, shape);
    sizes.states = round_up(keys.items * keys.steps, kAlignment);
    sizes.bits = keys.items * keys.steps * keys.rows * (4 * 4) * keys.words;
  }
  return sizes;
}

}  // namespace

size_t flash_sm90_stream_bytes(const Problem& p, const FlashSm90StepShape& shape) {
  const Sizes sizes = sizes_of(p, shape);
  return static_cast<size_t>(sizes.queue + sizes.states + sizes.bits);
}

void place_flash_sm90_stream(const Problem& p, const FlashSm90StepShape& shape, void* workspace, FlashSm90Keys& keys,
                             FlashSm90Queue& queue) {
  const Sizes sizes = sizes_of(p, shape);
  auto* at = static_cast<uint8_t*>(workspace);
  keys = {};
  queue = {};
  if (sizes.queue != 0) queue.next = reinterpret_cast<int32_t*>(at);
  if (given(p.cu_seqlens_q) && sizes.queue != 0) {
    queue.order = queue.next + kAlignment / 4;
    queue.first_place = queue.order + p.batch;
  }
  if (sizes.bits == 0) return;
  keys = layout_of(p, shape);
  keys.states = at + sizes.queue;
  keys.bits = reinterpret_cast<uint32_t*>(keys.states + sizes.states);
}

}  // namespace attnmux
