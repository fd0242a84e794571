#pragma once

// What the transports share about regions: mapping one that came from elsewhere, and sleeping on its words.

#include <atomic>
#include <cstdint>

#include "base/outcome.h"
#include "transport/layout.h"

namespace tide {

// Maps the memfd of a client. Refuses one that is not a sealed region of this version: a client that could truncate it
// would kill the worker. The descriptor stays the caller's.
Outcome map_shared_region(int fd, Region* region);
// Private zeroed memory with a region's layout; pages are touched only when used.
Outcome map_private_region(Region* region);
void unmap_region(Region region);

// Sleeps while *word is `seen`, at most `timeout_us`; the word may be shared between processes.
void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, uint32_t timeout_us);
// Changes the word and wakes all who sleep on it.
void futex_bump(std::atomic<uint32_t>& word);

}  // namespace tide
