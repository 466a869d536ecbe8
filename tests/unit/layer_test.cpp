// SPDX-License-Identifier: Apache-2.0
// Layers and models: set and reset with filters, checked before anything changes, without leaks.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace attnmux {
namespace {

struct Block {
  AttentionLayer self{"self"}, cross{"cross"};
};

struct Transformer : ModelMixin<Transformer> {
  std::vector<Block> blocks = std::vector<Block>(3);
  AttentionLayer joint{"dit.joint"}, mid{"vae.mid"};
  void visit_attention_layers(const LayerVisitor& visit) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      const auto block = visit.under("blocks", i);
      block("attn1", blocks[i].self), block("attn2", blocks[i].cross);
    }
    visit("joint", joint);
    visit.under("vae").under("mid")("attn", mid);
  }
};

// path -> backend
std::map<std::string, std::string> state(Transformer& model) {
  std::map<std::string, std::string> all;
  for (const LayerInfo& layer : attention_layers(model)) all[layer.path] = layer.backend.name();
  return all;
}
std::vector<std::string> paths_with(Transformer& model, std::string_view backend) {
  std::vector<std::string> paths;
  for (const auto& [path, name] : state(model)) {
    if (name == backend) paths.push_back(path);
  }
  return paths;
}
using Paths = std::vector<std::string>;

// The backend that a call of this layer gets.
std::string resolved(const AttentionLayer& layer) {
  const MutableTensorView t(nullptr, Dtype::kFp32, {1, 4, 1, 8});
  return std::string(plan(t, t, t, t, {.layer = &layer}).backend().name());
}

TEST(Layers, AreSmallValues) {
  EXPECT_LE(sizeof(AttentionLayer), 24u);
  AttentionLayer a{"self"};
  a.set_backend("flash");
  const AttentionLayer copy = a;
  EXPECT_EQ(copy.role(), "self");
  EXPECT_EQ(copy.backend(), Backend("flash"));
  AttentionLayer b;
  EXPECT_EQ(b.role(), "");
  b = copy;
  a.set_backend({});
  EXPECT_EQ(b.backend(), Backend("flash"));
  EXPECT_FALSE(a.backend());
}

TEST(Layers, ARoleHasAtMost15Characters) {
  EXPECT_EQ(AttentionLayer{"fifteen.letters"}.role(), "fifteen.letters");
  const AttentionLayer made_at_run_time{std::string_view("sixteen.letters!")};
  const MutableTensorView t(nullptr, Dtype::kFp32, {1, 4, 1, 8});
  Plan plan;
  const Status status = try_plan(plan, t, t, t, t, {.layer = &made_at_run_time});
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("sixteen.letters!"), std::string_view::npos) << status.message();
  EXPECT_NE(status.message().find("15"), std::string_view::npos) << status.message();
}

TEST(Models, ListTheirLayers) {
  Transformer model;
  const std::vector<LayerInfo> layers = attention_layers(model);
  ASSERT_EQ(layers.size(), 8u);
  EXPECT_EQ(layers[0].path, "blocks.0.attn1");
  EXPECT_EQ(layers[0].role, "self");
  EXPECT_FALSE(layers[0].backend);
  EXPECT_EQ(layers[5].path, "blocks.2.attn2");
  EXPECT_EQ(layers[7].path, "vae.mid.attn");
  EXPECT_EQ(layers[7].role, "vae.mid");
}

TEST(Models, SetAndReset) {
  Transformer model, untouched;
  model.set_attention_backend("flash");
  EXPECT_EQ(paths_with(model, "flash").size(), 8u);
  EXPECT_EQ(resolved(model.blocks[1].cross), "flash");
  EXPECT_EQ(paths_with(untouched, "").size(), 8u) << "leaked into another model";
  EXPECT_EQ(default_attention_backend().name(), "native") << "leaked into the process default";
  model.reset_attention_backend();
  EXPECT_EQ(paths_with(model, "").size(), 8u);
  EXPECT_EQ(resolved(model.blocks[1].cross), "native");
}

TEST(Models, FilterByRole) {
  Transformer model;
  model.set_attention_backend("flash", {.role = "cross"});
  EXPECT_EQ(paths_with(model, "flash"), (Paths{"blocks.0.attn2", "blocks.1.attn2", "blocks.2.attn2"}));
  model.set_attention_backend("xformers", {.role = "dit"});  // also every dit.*
  EXPECT_EQ(paths_with(model, "xformers"), Paths{"joint"});
  model.set_attention_backend("_native_math", {.role = "vae.mid"});
  EXPECT_EQ(paths_with(model, "_native_math"), Paths{"vae.mid.attn"});
  model.reset_attention_backend({.role = "cross"});
  EXPECT_EQ(paths_with(model, "flash"), Paths{});
  EXPECT_EQ(paths_with(model, "xformers"), Paths{"joint"});
}

TEST(Models, FilterByPath) {
  const std::pair<std::string, Paths> rows[] = {
      {"blocks.*.attn1", {"blocks.0.attn1", "blocks.1.attn1", "blocks.2.attn1"}},
      {"blocks.1.*", {"blocks.1.attn1", "blocks.1.attn2"}},
      {"blocks.?.attn?",
       {"blocks.0.attn1", "blocks.0.attn2", "blocks.1.attn1", "blocks.1.attn2", "blocks.2.attn1", "blocks.2.attn2"}},
      {"joint", {"joint"}},
      {"*", {"joint"}},  // within a segment
      {"**.attn", {"vae.mid.attn"}},
      {"vae**", {"vae.mid.attn"}},
      {"**1", {"blocks.0.attn1", "blocks.1.attn1", "blocks.2.attn1"}},
      {"b*s.2.*2", {"blocks.2.attn2"}},
  };
  for (const auto& [glob, expected] : rows) {
    Transformer model;
    model.set_attention_backend("flash", {.path = glob});
    EXPECT_EQ(paths_with(model, "flash"), expected) << glob;
  }
  Transformer both;
  both.set_attention_backend("flash", {.role = "self", .path = "blocks.2.**"});
  EXPECT_EQ(paths_with(both, "flash"), Paths{"blocks.2.attn1"});
}

TEST(Models, AFilterThatMatchesNothingIsAnErrorThatListsWhatIsThere) {
  Transformer model;
  for (const LayerFilter& filter : {LayerFilter{.role = "crss"}, LayerFilter{.path = "blocks.9.*"},
                                    LayerFilter{.role = "dit.jo"}, LayerFilter{.role = "self", .path = "joint"}}) {
    const Status status = try_set_attention_backend(model, "flash", filter);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_TRUE(status.message().starts_with("[attention] no layer matches")) << status.message();
    EXPECT_NE(status.message().find(filter.role), std::string_view::npos) << status.message();
    EXPECT_NE(status.message().find(filter.path), std::string_view::npos) << status.message();
    EXPECT_NE(status.message().find("blocks.0.attn1 (self)"), std::string_view::npos) << status.message();
    EXPECT_NE(status.message().find("joint (dit.joint)"), std::string_view::npos) << status.message();
    EXPECT_THROW(set_attention_backend(model, "flash", filter), Error);
    EXPECT_THROW(reset_attention_backend(model, filter), Error);
  }
  EXPECT_EQ(paths_with(model, "").size(), 8u) << "something changed";
}

TEST(Models, ABackendThatCannotRunHereChangesNothing) {
  Transformer model;
  model.set_attention_backend("xformers", {.role = "self"});
  const auto before = state(model);
  const Status status = try_set_attention_backend(model, "_flash_3");
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_NE(status.message().find("_flash_3"), std::string_view::npos) << status.message();
  EXPECT_EQ(state(model), before);
}

TEST(Models, MayHaveNoLayers) {
  const Status status = try_set_attention_backend([](const LayerVisitor&) {}, "flash");
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_TRUE(status.message().ends_with("none")) << status.message();
}

TEST(Models, MayBeALambdaOverModulesOfAnother) {
  std::vector<std::unique_ptr<AttentionLayer>> modules;
  for (int i = 0; i < 3; ++i)
    modules.push_back(std::make_unique<AttentionLayer>(std::string_view(i == 1 ? "cross" : "self")));
  const auto layers = [&](const LayerVisitor& visit) {
    for (size_t i = 0; i < modules.size(); ++i) visit.under("m", i)("a", *modules[i]);
  };
  set_attention_backend(layers, "flash", {.role = "cross"});
  EXPECT_FALSE(modules[0]->backend());
  EXPECT_EQ(modules[1]->backend(), Backend("flash"));
  EXPECT_EQ(attention_layers(layers)[1].path, "m.1.a");
}

// Layers may move: nothing keeps a pointer to them.
TEST(Models, MayGrowAfterTheyWereSet) {
  Transformer model;
  model.set_attention_backend("flash");
  for (int i = 0; i < 100; ++i) model.blocks.push_back(model.blocks[0]);
  EXPECT_EQ(paths_with(model, "flash").size(), 208u);
  model.blocks.emplace_back();
  EXPECT_EQ(paths_with(model, "").size(), 2u);
}

// Plans already made keep their backend.
TEST(Models, PlansKeepWhatTheyChose) {
  Transformer model;
  model.set_attention_backend("_native_math");
  const MutableTensorView t(nullptr, Dtype::kFp32, {1, 4, 1, 8});
  const Plan made = plan(t, t, t, t, {.layer = &model.joint});
  model.set_attention_backend("flash");
  EXPECT_EQ(made.backend(), Backend("_native_math"));
  EXPECT_EQ(made.kernel(), "cpu_math");
}

}  // namespace
}  // namespace attnmux
