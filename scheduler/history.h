#pragma once

// What has happened, for as long as it is kept: a SQLite file, filled batch by batch from an outbox (outbox.h) and
// asked by `tide report`. Of each outbox it knows the last batch that it has, so that none is taken twice, and which
// are missing. What a vGPU held is kept by the hour. Owned by one thread; read_report() may run on any.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/outbox.h"

struct sqlite3;

namespace tide::sched {

class History {
 public:
  // Creates the file if need be.
  static Outcome open(const std::string& path, std::unique_ptr<History>* history);
  ~History();
  History(const History&) = delete;
  History& operator=(const History&) = delete;

  const std::string& path() const { return path_; }
  // Batches of this outbox, in their order; those that it has are left out. On disk when it returns.
  Outcome take(uint64_t outbox, const std::vector<Batch>& batches);
  // The last batch of this outbox that it has; 0: none.
  Outcome last(uint64_t outbox, uint64_t* number);
  // Forgets what was before; jobs that have ended before, too. A piece of it, so that nobody waits for long: `more`
  // says that there may be others.
  Outcome forget_before(uint64_t wall_ms, bool* more);

 private:
  explicit History(std::string path) : path_(std::move(path)) {}
  Outcome prepare();
  Outcome run(const char* sql);
  Outcome failure(const char* what) const;
  Outcome take_batch(uint64_t outbox, uint64_t last, const Batch& batch);
  Outcome take_event(uint64_t outbox, const Event& event);
  Outcome keep(uint64_t outbox, uint64_t batch, uint64_t position, const Event& event);
  Outcome add_held(uint64_t outbox, const Event& event);
  Outcome add_capacity(uint64_t outbox, const Event& event);

  const std::string path_;
  sqlite3* db_ = nullptr;
};

// What a job held of GPUs of one model in a period.
struct JobUse {
  uint64_t outbox = 0, job = 0;
  std::string queue = {}, user = {}, name = {}, model = {};
  double held_ms = 0, used_ms = 0;
};

struct JobStart {
  uint64_t outbox = 0, job = 0;
  std::string queue = {}, user = {}, name = {};
  uint64_t wait_ms = 0;
};

struct Period {
  uint64_t since_ms = 0, until_ms = 0;  // since 1970
  // The part of [from_ms, to_ms] that lies in it, 0 to 1.
  double part_of(uint64_t from_ms, uint64_t to_ms) const;
};

struct HistoryGap {
  uint64_t batches = 0, from_ms = 0, to_ms = 0;  // about
};

// All that the history has of a period.
struct HistoryReport {
  uint64_t first_ms = 0, last_ms = 0;  // of all that it has; 0: nothing
  std::vector<JobUse> uses;
  std::vector<JobStart> starts;
  double capacity_ms = 0;
  std::vector<HistoryGap> gaps;
};

// With a connection of its own.
Outcome read_report(const std::string& path, const Period& period, HistoryReport* report);

}  // namespace tide::sched
