// SPDX-License-Identifier: Apache-2.0
// Arrays of any library as views of the C ABI, without a copy and without a conversion.
#pragma once

#include <attnmux/attnmux_c.h>
#include <nanobind/nanobind.h>

#include "dlpack.h"

namespace attnmux::python {

/// What an argument may hold, for the words of a refusal.
enum class Accepts { kFloating, kMask, kInt32, kFp32 };

/// One argument, held from import to the end of the call: the producer keeps the memory as long.
class Borrowed {
 public:
  Borrowed() = default;
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  ~Borrowed();

  attnmux_tensor view{};
  bool read_only = false;

 private:
  friend class Importer;
  Py_buffer buffer_{};
  dlpack::Managed* managed_ = nullptr;
  dlpack::ManagedVersioned* versioned_ = nullptr;
};

/// Imports the arguments of one call. All of them lie on the device of the first, whose library tells the stream where
/// the caller names none.
class Importer {
 public:
  /// `stream`: None, or what DLPack calls a stream: 1 CUDA's legacy default stream, 2 its per-thread default stream,
  /// else the handle of a stream. `computes`: tensors that require grad are refused, since there is no backward here.
  Importer(nanobind::handle stream, bool computes);

  void read(Borrowed& to, nanobind::handle object, const char* name, Accepts accepts);
  void write(Borrowed& to, nanobind::handle object, const char* name, Accepts accepts);

  /// For attnmux_exec: null on the CPU where the caller names no stream.
  void* stream() const { return stream_; }

 private:
  void import(Borrowed& to, nanobind::handle object, const char* name, Accepts accepts);
  bool from_exchange_api(Borrowed& to, nanobind::handle object, const char* name, Accepts accepts);
  bool from_buffer(Borrowed& to, nanobind::handle object, const char* name, Accepts accepts);
  bool from_dlpack(Borrowed& to, nanobind::handle object, const char* name, Accepts accepts);
  void from_python(Borrowed& to, nanobind::handle object, const char* name, Accepts accepts);
  void find_stream(nanobind::handle object, int32_t device_id, const dlpack::ExchangeApi* api);

  bool computes_;
  bool first_ = true;
  bool given_ = false;  // the caller named the stream
  void* stream_ = nullptr;
};

}  // namespace attnmux::python
