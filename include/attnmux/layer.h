// SPDX-License-Identifier: Apache-2.0
// What an attention layer holds, and how a model says once where its layers are.
#pragma once

#include <attnmux/backend.h>

#include <atomic>
#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace attnmux {

/// A value that a layer holds and passes to its calls (`.layer = &layer`): its role and the backend that was set for
/// it. Setting is an atomic store: safe while other threads run the layer. Copies carry role and backend.
class AttentionLayer {
 public:
  static constexpr size_t kMaxRole = 15;

  AttentionLayer() = default;
  /// The role: "self", "cross", "dit.joint", "vae.mid"; at most 15 characters.
  template <size_t N>
  explicit AttentionLayer(const char (&role)[N]) : AttentionLayer(std::string_view(role, N - 1)) {
    static_assert(N - 1 <= kMaxRole, "a role has at most 15 characters");
  }
  /// A role made at run time; longer ones are refused by the first call of the layer.
  explicit AttentionLayer(std::string_view role) {
    const size_t n = role.size() < sizeof(role_) ? role.size() : sizeof(role_);
    for (size_t i = 0; i < n; ++i) role_[i] = role[i];  // a full array has no zero: the call sees that it was too long
  }
  AttentionLayer(const AttentionLayer& other) : backend_(other.backend_.load(std::memory_order_relaxed)) {
    copy_role(other);
  }
  AttentionLayer& operator=(const AttentionLayer& other) {
    backend_.store(other.backend_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    copy_role(other);
    return *this;
  }

  std::string_view role() const {
    size_t n = 0;
    while (n < sizeof(role_) && role_[n] != 0) ++n;
    return {role_, n};
  }
  /// Backend{} until one is set: scope and process default decide.
  Backend backend() const { return Backend::from_id(backend_.load(std::memory_order_relaxed)); }
  void set_backend(Backend backend) { backend_.store(backend.id(), std::memory_order_relaxed); }

  /// Writes role and backend into the options of the C ABI.
  void fill(attnmux_options& o) const {
    o.layer_backend = backend_.load(std::memory_order_relaxed);
    for (size_t i = 0; i < sizeof(role_); ++i) o.layer_role[i] = role_[i];
  }

 private:
  void copy_role(const AttentionLayer& other) {
    for (size_t i = 0; i < sizeof(role_); ++i) role_[i] = other.role_[i];
  }
  std::atomic<uint16_t> backend_{0};
  char role_[kMaxRole + 1] = {};
};

/// Handed to a model, which calls it for each of its layers: `visit("attn1", layer)`, `visit.under("blocks", i)`.
class LayerVisitor {
 public:
  /// `callback(path, layer)` is called for every layer; it must outlive the visitor.
  template <typename Callback>
    requires(!std::derived_from<std::remove_cvref_t<Callback>, LayerVisitor>)
  explicit LayerVisitor(Callback& callback)
      : callback_(&callback), call_([](void* c, std::string_view path, AttentionLayer& layer) {
          (*static_cast<Callback*>(c))(path, layer);
        }) {}

  void operator()(std::string_view name, AttentionLayer& layer) const { call_(callback_, join(name), layer); }
  LayerVisitor under(std::string_view name) const {
    LayerVisitor child = *this;
    child.prefix_ = join(name) + ".";
    return child;
  }
  LayerVisitor under(std::string_view name, size_t index) const { return under(name).under(std::to_string(index)); }

 private:
  std::string join(std::string_view name) const { return prefix_ + std::string(name); }
  void* callback_;
  void (*call_)(void*, std::string_view, AttentionLayer&);
  std::string prefix_;
};

/// Which layers a setter means. Empty fields match everything.
struct LayerFilter {
  std::string_view role = {};  ///< a role, or a prefix of it up to a dot: "dit" also means "dit.joint"
  std::string_view path = {};  ///< a glob: `*` within a segment, `**` across dots, `?` one character
};

namespace detail {
inline bool role_matches(std::string_view filter, std::string_view role) {
  return filter.empty() || role == filter ||
         (role.size() > filter.size() && role.starts_with(filter) && role[filter.size()] == '.');
}

inline bool glob_matches(std::string_view pattern, std::string_view path) {
  while (!pattern.empty()) {
    if (pattern[0] == '*') {
      const bool deep = pattern.size() > 1 && pattern[1] == '*';
      const std::string_view rest = pattern.substr(deep ? 2 : 1);
      for (size_t i = 0;; ++i) {
        if (glob_matches(rest, path.substr(i))) return true;
        if (i == path.size() || (!deep && path[i] == '.')) return false;
      }
    }
    if (path.empty() || (pattern[0] != path[0] && (pattern[0] != '?' || path[0] == '.'))) return false;
    pattern.remove_prefix(1);
    path.remove_prefix(1);
  }
  return path.empty();
}

template <typename Model, typename Callback>
void visit_layers(Model&& model, Callback&& callback) {
  const LayerVisitor visitor(callback);
  if constexpr (requires { model.visit_attention_layers(visitor); }) {
    model.visit_attention_layers(visitor);
  } else {
    static_assert(std::invocable<Model&, const LayerVisitor&>,
                  "a model has visit_attention_layers(const LayerVisitor&), or is a callable that takes one");
    model(visitor);
  }
}

inline Status set_error(attnmux_code code, const std::string& text) {
  attnmux_error error{code, 0, {}};
  error.length = static_cast<uint32_t>(text.copy(error.message, sizeof(error.message) - 1));
  return Status(error);
}
}  // namespace detail

struct LayerInfo {
  std::string path;
  std::string role;
  Backend backend;
};

/// Every attention layer of a model with its path, role and backend.
template <typename Model>
std::vector<LayerInfo> attention_layers(Model&& model) {
  std::vector<LayerInfo> layers;
  detail::visit_layers(model, [&](std::string_view path, AttentionLayer& layer) {
    layers.push_back({std::string(path), std::string(layer.role()), layer.backend()});
  });
  return layers;
}

/// Checks first (the backend runs on this machine, the filter matches something), then changes only the matching layers
/// of this model, until reset. Calls under way and plans already made keep their backend.
template <typename Model>
Status try_set_attention_backend(Model&& model, Backend backend, LayerFilter filter = {}) {
  if (backend) {
    if (Status status = backend.available(); !status) return status;
  }
  const auto matches = [&](std::string_view path, const AttentionLayer& layer) {
    return detail::role_matches(filter.role, layer.role()) &&
           (filter.path.empty() || detail::glob_matches(filter.path, path));
  };
  bool found = false;
  std::string there;
  detail::visit_layers(model, [&](std::string_view path, AttentionLayer& layer) {
    found = found || matches(path, layer);
    if (!found) there += (there.empty() ? "" : ", ") + std::string(path) + " (" + std::string(layer.role()) + ")";
  });
  if (!found) {
    return detail::set_error(
        ATTNMUX_INVALID_ARGUMENT,
        "[attention] no layer matches role \"" + std::string(filter.role) + "\", path \"" + std::string(filter.path) +
            "\"; path (role) of the layers there are: " + (there.empty() ? std::string("none") : there));
  }
  detail::visit_layers(model, [&](std::string_view path, AttentionLayer& layer) {
    if (matches(path, layer)) layer.set_backend(backend);
  });
  return {};
}

template <typename Model>
Status try_reset_attention_backend(Model&& model, LayerFilter filter = {}) {
  return try_set_attention_backend(model, Backend{}, filter);
}

#if defined(__cpp_exceptions)
template <typename Model>
void set_attention_backend(Model&& model, Backend backend, LayerFilter filter = {}) {
  detail::throw_if_failed(try_set_attention_backend(model, backend, filter));
}
/// Back to scope and process default.
template <typename Model>
void reset_attention_backend(Model&& model, LayerFilter filter = {}) {
  detail::throw_if_failed(try_reset_attention_backend(model, filter));
}

/// Optional: gives a model the setters as members.
template <typename Model>
class ModelMixin {
 public:
  void set_attention_backend(Backend backend, LayerFilter filter = {}) {
    attnmux::set_attention_backend(static_cast<Model&>(*this), backend, filter);
  }
  void reset_attention_backend(LayerFilter filter = {}) {
    attnmux::reset_attention_backend(static_cast<Model&>(*this), filter);
  }
};
#endif

}  // namespace attnmux
