// SPDX-License-Identifier: Apache-2.0
#include "errors.h"

#include <nanobind/stl/string.h>

namespace nb = nanobind;

namespace attnmux::python {
namespace {

nb::object make(attnmux_code code, const std::string& message) {
  return nb::module_::import_("attnmux._errors").attr("error_of")(code, nb::str(message.data(), message.size()));
}

[[noreturn]] void raise_object(const nb::object& exception) {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw nb::python_error();
}

}  // namespace

void raise(attnmux_code code, const std::string& message) { raise_object(make(code, message)); }

void raise_invalid(const std::string& message) { raise(ATTNMUX_INVALID_ARGUMENT, "[attention] " + message); }

void raise_invalid_from_current(const std::string& message) {
  nb::python_error current;  // takes the exception that is set
  const nb::object text = nb::steal(PyObject_Str(current.value().ptr()));
  const nb::object exception =
      make(ATTNMUX_INVALID_ARGUMENT, "[attention] " + message + ": " + nb::cast<std::string>(text));
  PyException_SetCause(exception.ptr(), nb::borrow(current.value()).release().ptr());
  raise_object(exception);
}

}  // namespace attnmux::python
