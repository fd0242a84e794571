#pragma once

#include <cstdint>

namespace tide {

// What was said of a managed block with this id is no longer wanted: it was freed.
void forget_advice(uint64_t id);

}  // namespace tide
