#pragma once

// Of all answers and words that are a worker's to tell, and in the client's region what has reached it. Where both
// differ, the connection broke during a move, and something is missing.

#include <cstdint>

#include "transport/layout.h"

namespace tide {

uint64_t told_digest(Region region);

}  // namespace tide
