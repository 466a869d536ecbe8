// SPDX-License-Identifier: Apache-2.0
// JSON in the order in which it is written down.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace attnmux::cli {

using Json = nlohmann::ordered_json;

/// One document on stdout. Numbers are locale-independent; what JSON cannot hold (NaN, infinities) becomes null.
void print_json(const Json& document);
/// What attnmux_describe has to say about a topic; throws Error.
Json describe(int32_t topic);

}  // namespace attnmux::cli
