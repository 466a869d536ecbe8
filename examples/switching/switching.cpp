// SPDX-License-Identifier: Apache-2.0
// The examples of the page "Attention backends", in C++, on a small model of two layers: set and reset for a model, the
// scope, filters by role and by path, the process default, and the error of a backend that this machine cannot run.
#include <attnmux/attnmux.h>

#include <iostream>
#include <vector>

namespace {

constexpr int64_t kBatch = 1, kSeqlen = 64, kHeads = 4, kHeadDim = 32;

// One attention layer. A real one would compute q, k and v from its input by linear layers.
struct Layer {
  explicit Layer(const attnmux::AttentionLayer& of) : attention(of) {}
  attnmux::AttentionLayer attention;

  void forward(std::vector<float>& hidden) const {
    std::vector<float> output(hidden.size());
    const attnmux::TensorView x(hidden.data(), {kBatch, kSeqlen, kHeads, kHeadDim});
    const attnmux::MutableTensorView out(output.data(), {kBatch, kSeqlen, kHeads, kHeadDim});
    attnmux::attention(x, x, x, out, {.layer = &attention});
    std::cout << "    " << attention.role() << ": "
              << attnmux::explain(x, x, x, out, {.layer = &attention}).text.substr(0, 60) << "…\n";
    hidden = output;
  }
};

struct Transformer : attnmux::ModelMixin<Transformer> {
  std::vector<Layer> blocks{Layer(attnmux::AttentionLayer("self")), Layer(attnmux::AttentionLayer("cross"))};

  // Say once where the layers are.
  void visit_attention_layers(const attnmux::LayerVisitor& visit) {
    for (size_t i = 0; i < blocks.size(); ++i) visit.under("blocks", i)("attention", blocks[i].attention);
  }

  void operator()(const char* what) const {
    std::cout << what << '\n';
    std::vector<float> hidden(kBatch * kSeqlen * kHeads * kHeadDim, 0.5f);
    for (const Layer& block : blocks) block.forward(hidden);
  }
};

}  // namespace

int main() {
  Transformer transformer;
  transformer("the default:");

  // set_attention_backend: all attention layers of this model, until reset.
  transformer.set_attention_backend("flash");
  transformer("after set_attention_backend(\"flash\"):");
  transformer.reset_attention_backend();

  // Some of its layers: by role, by path.
  transformer.set_attention_backend("_native_flash", {.role = "self"});
  transformer.set_attention_backend("_native_math", {.path = "blocks.1.*"});
  transformer("by role and by path:");
  transformer.reset_attention_backend();

  // The context manager: this thread, this scope.
  {
    const attnmux::AttentionBackendScope scope("xformers");
    transformer("inside a scope:");
  }
  transformer("outside again:");

  // A filter that matches nothing, and a backend that cannot run here, are errors that say what to do.
  for (const attnmux::LayerFilter filter : {attnmux::LayerFilter{.role = "vae"}, attnmux::LayerFilter{}}) {
    const auto backend = filter.role.empty() ? attnmux::Backend("_flash_3_hub") : attnmux::Backend("flash");
    if (auto status = attnmux::try_set_attention_backend(transformer, backend, filter); !status)
      std::cout << status.message() << '\n';
  }
}
