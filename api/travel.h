#pragma once

// How the calls of one thread travelled, as the preload library counts it for the tracer (interpose/trace): a table
// that cuGetExportTable gives for an id of our own. Counted where something is sent or waited for, nowhere else.

#include <cstddef>
#include <cstdint>

namespace tide {

struct TravelCounters {
  uint64_t commands;        // records written for workers
  uint64_t sent_bytes;      // of those records
  uint64_t received_bytes;  // answers, and the data that copies to the host asked for
  uint64_t round_trips;     // waits for something that was not there yet; questions to the scheduler and to agents
  uint64_t wait_ns;         // in those waits
};

struct TravelTable {
  size_t bytes;
  TravelCounters* (*of_this_thread)();
};

inline constexpr uint8_t kTravelTableId[16] = {0x74, 0x69, 0x64, 0x65, 0x2d, 0x74, 0x72, 0x61,
                                               0x76, 0x65, 0x6c, 0x2d, 0x30, 0x30, 0x30, 0x31};

}  // namespace tide
