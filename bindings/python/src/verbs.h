// SPDX-License-Identifier: Apache-2.0
// attention, plan and explain: from Python's arguments to one call of the C ABI, with the GIL released.
#pragma once

#include <nanobind/nanobind.h>

namespace attnmux::python {

void bind_verbs(nanobind::module_& m);

}  // namespace attnmux::python
