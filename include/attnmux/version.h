// SPDX-License-Identifier: Apache-2.0
#pragma once

#define ATTNMUX_VERSION_MAJOR 0
#define ATTNMUX_VERSION_MINOR 1
#define ATTNMUX_VERSION_PATCH 0
#define ATTNMUX_VERSION_STRING "0.1.0"
