// SPDX-License-Identifier: Apache-2.0
// error: conversion from .+ to non-scalar type|no viable conversion
// Text that the compiler cannot see goes through Backend::named or Backend::find, where it can fail.
#include <attnmux/attnmux.h>

#include <string>

attnmux::Backend configured(const std::string& text) {
#ifdef ATTNMUX_RIGHT
  const attnmux::Backend backend = attnmux::Backend::named(text);
#else
  const attnmux::Backend backend = text;
#endif
  return backend;
}
