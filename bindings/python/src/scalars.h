// SPDX-License-Identifier: Apache-2.0
// The options of a call that are numbers, made once and shared by any number of calls; immutable.
#pragma once

#include <attnmux/attnmux_c.h>
#include <nanobind/nanobind.h>

namespace attnmux::python {

struct Scalars {
  attnmux_options options{};  // without tensors and without a backend
};

void bind_scalars(nanobind::module_& m);

}  // namespace attnmux::python
