// SPDX-License-Identifier: Apache-2.0
// Backend names. THE list of names: append-only, because ids are positions in it and end up in saved graphs.
#pragma once

#include <attnmux/status.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace attnmux {

inline constexpr std::array<std::string_view, 21> kBackendNames = {
    "native",
    "_native_math",
    "_native_flash",
    "_native_efficient",
    "_native_cudnn",
    "_native_xla",
    "_native_npu",
    "flex",
    "flash",
    "flash_varlen",
    "_flash_3",
    "_flash_varlen_3",
    "_flash_3_hub",
    "sage",
    "sage_varlen",
    "_sage_qk_int8_pv_fp16_cuda",
    "_sage_qk_int8_pv_fp16_triton",
    "_sage_qk_int8_pv_fp8_cuda",
    "_sage_qk_int8_pv_fp8_cuda_sm90",
    "xformers",
    "auto",
};

namespace detail {
/// Not constexpr on purpose: reaching it while compiling is the compile error that a misspelt name deserves.
void no_attnmux_backend_has_this_name__see_kBackendNames();

constexpr uint16_t built_in_id(std::string_view name) {
  for (size_t i = 0; i < kBackendNames.size(); ++i) {
    if (kBackendNames[i] == name) return static_cast<uint16_t>(i + 1);
  }
  return 0;
}
}  // namespace detail

/// A two-byte handle. `Backend{}` means inherit: layer, scope and process default decide.
class Backend {
 public:
  constexpr Backend() = default;

  /// A string literal is looked up by the compiler; a misspelt name does not compile. Names with a dot belong to
  /// plugins and exist only at run time: Backend::named("acme.flash").
  template <size_t N>
  consteval Backend(const char (&name)[N]) : id_(detail::built_in_id(std::string_view(name, N - 1))) {
    if (id_ == 0) detail::no_attnmux_backend_has_this_name__see_kBackendNames();
  }

  static constexpr Backend from_id(uint16_t id) {
    Backend b;
    b.id_ = id;
    return b;
  }
  /// Any text, plugins included; nothing if there is no such name.
  static std::optional<Backend> find(std::string_view name) {
    const uint16_t id = attnmux_backend_find(name.data(), name.size());
    return id == 0 ? std::nullopt : std::optional(from_id(id));
  }
  static Status try_named(std::string_view name, Backend& backend) {
    Status status;
    attnmux_backend_named(name.data(), name.size(), &backend.id_, status.c_error());
    return status;
  }
#if defined(__cpp_exceptions)
  /// Throws Error with the closest names if there is no such name.
  static Backend named(std::string_view name) {
    Backend backend;
    detail::throw_if_failed(try_named(name, backend));
    return backend;
  }
#endif

  constexpr uint16_t id() const { return id_; }
  constexpr explicit operator bool() const { return id_ != 0; }
  /// "" for Backend{}.
  std::string_view name() const {
    const char* text = attnmux_backend_name(id_);
    return text == nullptr ? std::string_view{} : std::string_view(text);
  }
  /// Can it run on this machine? If not, the message says what is missing.
  Status available() const {
    Status status;
    attnmux_backend_available(id_, status.c_error());
    return status;
  }
  friend constexpr bool operator==(Backend, Backend) = default;

 private:
  uint16_t id_ = 0;
};
static_assert(sizeof(Backend) == 2);

/// The backend of calls that neither the call, nor a layer, nor a scope decides; Backend{} returns to ATTNMUX_BACKEND,
/// else `native`.
inline Status try_set_default_attention_backend(Backend backend) {
  Status status;
  attnmux_set_default_backend(backend.id(), status.c_error());
  return status;
}
#if defined(__cpp_exceptions)
inline void set_default_attention_backend(Backend backend) {
  detail::throw_if_failed(try_set_default_attention_backend(backend));
}
inline Backend default_attention_backend() {
  uint16_t id = 0;
  Status status;
  attnmux_default_backend(&id, status.c_error());
  detail::throw_if_failed(status);
  return Backend::from_id(id);
}
#endif

}  // namespace attnmux
