#pragma once

// One [[reservation]] of pool.toml as it was written, checked (config.h).

#include <string>
#include <vector>

#include "scheduler/queue_config.h"
#include "scheduler/reservation.h"

namespace tide::sched {

struct ReservationConfig {
  Reservation is;
  // Whose jobs may use it: of one of these users, or in one of these queues or below. Neither: everybody's.
  std::vector<std::string> users = {}, queues = {};
  FilePlace at = {}, queues_at = {};
};

inline constexpr size_t kReservationsMax = 256;
inline constexpr uint32_t kReservedGpusMax = 1'000'000;

// "4 GPUs (model H200) from 2026-11-24 08:00:00 UTC until ...".
std::string to_text(const ReservationConfig& reservation);

}  // namespace tide::sched
