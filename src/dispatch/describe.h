// SPDX-License-Identifier: Apache-2.0
// What the library is and has, as JSON for tools.
#pragma once

#include <string>

namespace attnmux {

std::string describe_backends();
std::string describe_machine();
std::string describe_abi();

}  // namespace attnmux
