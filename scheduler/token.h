#pragma once

// The secret that a job's clients show at every door.

#include <string>

#include "base/outcome.h"

namespace tide::sched {

Outcome new_token(std::string* token);  // kTokenBytes random bytes
// Takes as long for a wrong token as for the right one.
bool same_token(const std::string& a, const std::string& b);

}  // namespace tide::sched
