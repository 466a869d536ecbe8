// SPDX-License-Identifier: Apache-2.0
#include "attnmux/commands.h"

int main(int argc, char** argv) { return attnmux::cli::run_tool(argc, argv); }
