// SPDX-License-Identifier: Apache-2.0
// attnmux._core: the C ABI as Python functions. What users see is attnmux/*.py.
#include <attnmux/attnmux_c.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <string_view>
#include <vector>

#include "errors.h"
#include "gil.h"
#include "scalars.h"
#include "verbs.h"

namespace nb = nanobind;

namespace attnmux::python {
namespace {

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (uint16_t id = 1; const char* name = attnmux_backend_name(id); ++id) names.emplace_back(name);
  return names;
}

uint16_t backend_named(std::string_view name) {
  attnmux_error error;
  uint16_t id = 0;
  check(attnmux_backend_named(name.data(), name.size(), &id, &error), error);
  return id;
}

std::string describe(int32_t topic) {
  attnmux_error error;
  std::string text;
  const attnmux_write append = [](void* user, const char* part, size_t length) {
    static_cast<std::string*>(user)->append(part, length);
  };
  // The first look at a GPU takes a while.
  check(without_gil([&] { return attnmux_describe(topic, append, &text, &error); }), error);
  return text;
}

void bind_names(nb::module_& m) {
  m.def("backend_names", &backend_names, "The names of all backends, in the order of their ids from 1 on.");
  m.def(
      "find_backend", [](std::string_view name) { return attnmux_backend_find(name.data(), name.size()); },
      "The id of a backend; 0 where there is none.");
  m.def("backend_named", &backend_named, "The id of a backend; raises with the closest names where there is none.");
  m.def("check_available", [](uint16_t backend) {
    attnmux_error error;
    check(attnmux_backend_available(backend, &error), error);
  });
  m.def("describe", &describe);
  m.attr("DESCRIBE_BACKENDS") = static_cast<int32_t>(ATTNMUX_DESCRIBE_BACKENDS);
  m.attr("DESCRIBE_MACHINE") = static_cast<int32_t>(ATTNMUX_DESCRIBE_MACHINE);
}

void bind_process(nb::module_& m) {
  m.def("set_default_backend", [](uint16_t backend) {
    attnmux_error error;
    check(attnmux_set_default_backend(backend, &error), error);
  });
  m.def("default_backend", [] {
    attnmux_error error;
    uint16_t id = 0;
    check(attnmux_default_backend(&id, &error), error);
    return id;
  });
  m.def("check_environment", [] {
    attnmux_error error;
    check(attnmux_check_environment(&error), error);
  });
  m.def("set_num_threads", [](int32_t threads) {
    attnmux_error error;
    check(attnmux_set_num_threads(threads, &error), error);
  });
  m.def("num_threads", [] {
    attnmux_error error;
    int32_t threads = 0;
    check(attnmux_num_threads(&threads, &error), error);
    return threads;
  });
  m.def("release_workspace", [] { attnmux_release_workspace(); });
  m.def("load_plugin", [](const std::string& path) {
    attnmux_error error;
    check(attnmux_load_plugin(path.c_str(), &error), error);
  });
  m.def("prepare_exit", &prepare_exit);
  m.def("forget_threads", &forget_threads);
  m.def("version", [] { return attnmux_version(); });
}

}  // namespace
}  // namespace attnmux::python

NB_MODULE(_core, m) {
  attnmux::python::bind_names(m);
  attnmux::python::bind_process(m);
  attnmux::python::bind_scalars(m);
  attnmux::python::bind_verbs(m);
}
