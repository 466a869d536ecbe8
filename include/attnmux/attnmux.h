// SPDX-License-Identifier: Apache-2.0
/// attnmux: one attention call, every kernel. The one header that users include.
///
///     attnmux::attention(q, k, v, out, {.mask = attnmux::Mask::causal(), .backend = "flash"});
#pragma once

#include <attnmux/attention.h>
#include <attnmux/backend.h>
#include <attnmux/explain.h>
#include <attnmux/layer.h>
#include <attnmux/mask.h>
#include <attnmux/options.h>
#include <attnmux/process.h>
#include <attnmux/scope.h>
#include <attnmux/status.h>
#include <attnmux/tensor.h>
#include <attnmux/version.h>
