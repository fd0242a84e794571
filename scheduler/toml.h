#pragma once

// TOML's parser as all of us use it: alike in each file that does.

#define TOML_EXCEPTIONS 0
#undef NDEBUG                                  // else it may tell the compiler that its assertions hold
#define TOML_ASSERT(expr) static_assert(true)  // some fail on garbage, of which an error is made behind them
#include <toml++/toml.h>
