#pragma once

// The books of the pool: what happens is noted (accounts.h), written into the store with the jobs' records (outbox.h),
// and carried by the scheduler that leads into a history (history.h). Where that takes nothing, or a store nothing,
// jobs go on and what has happened waits. Owned by the reconciler, on its event loop.

#include <kj/async.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/accounts.h"
#include "scheduler/history.h"
#include "scheduler/ledger.h"
#include "scheduler/outbox.h"
#include "scheduler/store.h"

namespace tide::sched {

inline constexpr uint32_t kAskUsageMs = 5'000;  // agents are asked so often how long GPUs have worked
inline constexpr uint32_t kCarryMs = 1'000;
inline constexpr uint32_t kHistoryAgainMs = 3'000;  // after it could not be written
inline constexpr uint32_t kForgetMs = 3'600'000;
inline constexpr size_t kCountedAtOnce = 40;  // jobs whose records are written in a tick only because of the books

// Of the agents of all servers that are online.
using AskUsage = std::function<kj::Promise<std::vector<UsageSeen>>()>;

struct BooksState {
  bool kept = false;
  std::string path;
  std::string problem;   // why the history is not written; empty: it is
  uint64_t waiting = 0;  // batches that wait for it
  uint64_t lost = 0;     // batches that did not wait any longer
};

class Books {
 public:
  Books(Ledger& ledger, Store& store);
  Books(const Books&) = delete;
  Books& operator=(const Books&) = delete;

  // Before it ends: carries what can be carried.
  void finish();
  // Where the history is; before begin(). Empty: no books are kept.
  void keep_in(const std::string& path) { path_ = path; }
  // When the jobs of the record are in the ledger, and this scheduler leads.
  Outcome begin();

  // Before records of jobs are written.
  void close(const std::vector<Job*>& jobs);
  void note_move(const Job& job, uint32_t vgpu, const GpuId& from, const MoveTotals& totals);
  void note_recovery(const Job& job, uint32_t vgpu);
  // Called by the tick. The answer: whose records are to be written, because of what waits for that.
  std::vector<Job*> count();
  // Behind that: what has no record, and some of what waits for the history.
  void carry(uint64_t now);
  // Whether agents are to be asked now; heard() tells what they have said.
  bool wants_usage(uint64_t now);
  void heard(const std::vector<UsageSeen>& usage) { accounts_.heard(usage); }

  BooksState state() const;
  // All that has happened until now: what is in the history (in another thread), and what is not yet.
  kj::Promise<HistoryReport> report(Period period);

 private:
  Moment now() const;
  bool begun() const { return outbox_ != nullptr; }
  bool take_some();
  void fail(const Outcome& outcome, uint64_t now);
  void add_open(const Period& period, HistoryReport* report) const;

  Ledger& ledger_;
  Store& store_;
  std::string path_;
  const uint64_t boot_;
  std::unique_ptr<Outbox> outbox_;  // null: no books are kept
  Accounts accounts_;
  std::unique_ptr<History> history_;  // null: it could not be opened
  std::string problem_;
  uint64_t carry_ns_ = 0, forget_ns_ = 0, ask_ns_ = 0;
};

}  // namespace tide::sched
