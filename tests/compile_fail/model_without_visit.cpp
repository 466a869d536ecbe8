// SPDX-License-Identifier: Apache-2.0
// error: a model has visit_attention_layers.const LayerVisitor&., or is a callable that takes one
#include <attnmux/attnmux.h>

struct Model {
#ifdef ATTNMUX_RIGHT
  void visit_attention_layers(const attnmux::LayerVisitor& visit) { visit("attn", layer); }
#endif
  attnmux::AttentionLayer layer;
};

void run(Model& model) { attnmux::set_attention_backend(model, "flash"); }
