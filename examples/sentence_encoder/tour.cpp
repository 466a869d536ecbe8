// SPDX-License-Identifier: Apache-2.0
#include "tour.h"

#include <chrono>
#include <cstdio>

namespace sentence_encoder {

namespace {

/// "flash ×1, _native_math ×5": what the layers ask for; "–" for those that leave it to scope and default.
std::string backends_of(Encoder& encoder) {
  std::vector<std::pair<std::string, int>> counts;
  for (const attnmux::LayerInfo& layer : attnmux::attention_layers(encoder)) {
    const std::string name = layer.backend ? std::string(layer.backend.name()) : "–";
    if (counts.empty() || counts.back().first != name) counts.emplace_back(name, 0);
    ++counts.back().second;
  }
  std::string text;
  for (const auto& [name, count] : counts) text += (text.empty() ? "" : ", ") + name + " ×" + std::to_string(count);
  return text;
}

}  // namespace

void take_tour(Encoder& encoder, const std::vector<std::vector<int32_t>>& batch) {
  Matrix first;
  const auto show = [&](const char* step) {
    encoder.encode(batch);  // once without the clock
    const auto start = std::chrono::steady_clock::now();
    const Matrix embeddings = encoder.encode(batch);
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    if (first.size() == 0) first = embeddings;
    std::printf("%s\n    layers: %s;  %.1f ms,  largest difference %.1e\n", step, backends_of(encoder).c_str(),
                time.count(), static_cast<double>((embeddings - first).cwiseAbs().maxCoeff()));
  };

  show("nothing set: native");

  encoder.set_attention_backend("_native_math");
  show("set_attention_backend(\"_native_math\")");

  encoder.set_attention_backend("flash", {.path = "layers.0.self"});
  show("set_attention_backend(\"flash\", {.path = \"layers.0.self\"}): the first layer only");

  encoder.set_attention_backend("flash", {.role = "self"});
  show("set_attention_backend(\"flash\", {.role = \"self\"}): this encoder has no other role");

  encoder.reset_attention_backend();
  {
    attnmux::AttentionBackendScope scope("_native_efficient");
    show("reset, and AttentionBackendScope scope(\"_native_efficient\"): this thread, to the end of the block");
  }

  if (auto status = attnmux::try_set_attention_backend(encoder, "flash", {.role = "cross"}); !status) {
    std::printf("a filter that matches nothing is an error:\n    %s\n", status.c_str());
  }
}

}  // namespace sentence_encoder
