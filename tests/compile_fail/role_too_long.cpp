// SPDX-License-Identifier: Apache-2.0
// error: a role has at most 15 characters
#include <attnmux/attnmux.h>

#ifdef ATTNMUX_RIGHT
attnmux::AttentionLayer layer{"fifteen.letters"};
#else
attnmux::AttentionLayer layer{"sixteen.letters!"};
#endif
