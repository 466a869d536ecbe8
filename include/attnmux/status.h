// SPDX-License-Identifier: Apache-2.0
// How calls fail: a Status for people who do not throw, an Error for those who do.
#pragma once

#include <attnmux/attnmux_c.h>

#include <exception>
#include <string_view>

namespace attnmux {

enum class Code : int32_t {
  kOk = ATTNMUX_OK,
  kInvalidArgument = ATTNMUX_INVALID_ARGUMENT,
  kUnknownBackend = ATTNMUX_UNKNOWN_BACKEND,
  kUnavailable = ATTNMUX_UNAVAILABLE,
  kUnsupported = ATTNMUX_UNSUPPORTED,
  kBadEnvironment = ATTNMUX_BAD_ENVIRONMENT,
  kOutOfMemory = ATTNMUX_OUT_OF_MEMORY,
  kDeviceError = ATTNMUX_DEVICE_ERROR,
  kExecutorFailed = ATTNMUX_EXECUTOR_FAILED,
  kInternal = ATTNMUX_INTERNAL,
};

/// Success, or a code and a message that names the argument, its value and what is accepted. 512 bytes, no heap.
class [[nodiscard]] Status {
 public:
  Status() = default;
  explicit Status(const attnmux_error& error) : error_(error) {}

  bool ok() const { return error_.code == ATTNMUX_OK; }
  explicit operator bool() const { return ok(); }
  Code code() const { return static_cast<Code>(error_.code); }
  /// Empty on success.
  std::string_view message() const { return {error_.message, error_.length}; }
  const char* c_str() const { return error_.message; }

  /// For the functions of the C ABI.
  attnmux_error* c_error() { return &error_; }

 private:
  attnmux_error error_{};
};

/// What the throwing verbs throw. Copying does not allocate and cannot fail.
class Error : public std::exception {
 public:
  explicit Error(const Status& status) : status_(status) {}
  const char* what() const noexcept override { return status_.c_str(); }
  Code code() const noexcept { return status_.code(); }
  const Status& status() const noexcept { return status_; }

 private:
  Status status_;
};

#if defined(__cpp_exceptions)
namespace detail {
inline void throw_if_failed(const Status& status) {
  if (!status) throw Error(status);
}
}  // namespace detail
#endif

}  // namespace attnmux
