#pragma once

// What the scheduler knows of a vGPU's checkpoints (docs/decisions/0019-*.md): who keeps them, and the last one. Plain
// data; the reconciler changes it.

#include <cstdint>
#include <string>

namespace tide::sched {

// Guards' leases have epochs of their own, so that none is a vGPU's.
inline constexpr uint64_t kGuardEpochs = uint64_t{1} << 62;

// In the record.
struct GuardRecord {
  std::string server;    // empty: there is none
  uint64_t epoch = 0;    // of its lease; the highest that was ever used
  uint64_t made_ms = 0;  // since 1970, when the last checkpoint was whole; 0: none is
  std::string token;     // of its lease: the job's programs do not know it
};

struct CheckpointTotals {
  uint64_t bytes = 0, pause_bytes = 0;
  double pause_ms = 0, drain_ms = 0, copy_ms = 0, total_ms = 0, cpu_ms = 0;
  uint32_t rounds = 0, sessions = 0;
};

struct Protection {
  GuardRecord guard = {};
  CheckpointTotals last = {};   // that this scheduler saw; of no session: none
  bool asked = false;           // an agent is at something
  bool watched = false;         // the vGPU's agent says when there is news
  bool lost = false;            // its worker is; it goes on from the checkpoint
  bool refused = false;         // there can be none, from now on
  uint32_t failures = 0;        // in a row
  uint32_t recoveries = 0;      // since the last checkpoint
  uint32_t recoveries_all = 0;  // that this scheduler saw
  uint64_t next_ns = 0;         // when the next checkpoint is due
  uint64_t watch_ns = 0;        // when to watch again
  std::string problem = {};     // why there is none, or none newer

  bool whole() const { return !guard.server.empty() && guard.made_ms != 0; }
};

}  // namespace tide::sched
