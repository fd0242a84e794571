#pragma once

// What has happened and is not in the history yet, in the store: a batch of events under a key of its own for each
// transaction, written together with the jobs' records of which they tell. Batches have numbers without gaps, so that
// who carries them into a history (books.h) can tell what it has. A batch that may or may not have been written keeps
// its number until that is known: no two of one number are ever in the store.
//
// At most kOutboxBatchesMax of them lie there. Where the history cannot take them for so long, each new one displaces
// the oldest, whose number is missing from then on. Owned by one thread, that of its store.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/event.h"
#include "scheduler/kv.h"

namespace tide::sched {

inline constexpr uint64_t kOutboxBatchesMax = 20'000;
inline constexpr uint32_t kOutboxReadMax = 64;         // batches that are read at once
inline constexpr size_t kOutboxEventsMax = 1'000;      // of one batch; the rest is in the next
inline constexpr size_t kOutboxBytesMax = 256u << 10;  // of one batch, about: a transaction of etcd has 1.5 MiB
inline constexpr size_t kOutboxPendingMax = 200'000;   // events that the store does not take; later ones are lost

struct Batch {
  uint64_t number = 0;
  std::vector<Event> events;
};

class Outbox {
 public:
  // All keys begin with `root`, as those of its store.
  Outbox(Kv& kv, const std::string& root);
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  // Once, before anything is noted, by who may write: what lies there, and how it goes on. Makes the name.
  Outcome load(Transaction guard);
  // Of the store: batches of two stores have the same numbers.
  uint64_t name() const { return name_; }

  // To be written with the next record of its job; of no job (0): with the next batch of any.
  void note(Event event);
  bool waits_for(uint64_t job) const { return pending_.count(job) != 0; }

  // Between these and done() is one commit of the transaction.
  Outcome join(const std::vector<uint64_t>& jobs, Transaction* transaction);
  Outcome join_submissions(const std::vector<JobRecord>& jobs, Transaction* transaction);
  // Of the pool, and of jobs that have no record any more.
  Outcome join_rest(const std::function<bool(uint64_t)>& has_record, Transaction* transaction);
  // `known`: whether the store has said what came of it.
  void done(bool known, bool committed);

  // The oldest that lie there, at most kOutboxReadMax.
  Outcome read(std::vector<Batch>* batches);
  void forget(uint64_t up_to, Transaction* transaction) const;
  void forgotten(uint64_t up_to);

  uint64_t waiting() const { return next_ - first_; }  // batches
  uint64_t displaced() const { return displaced_; }    // since it was loaded, and events that were never written

 private:
  std::string key(uint64_t number) const;
  Outcome settle();
  void go_on();
  struct Taken {
    std::map<uint64_t, size_t> counts;  // by job: how many of pending_
    std::vector<Event> events;
    size_t bytes = 0;  // at most, about
  };
  Outcome put(Taken taken, Transaction* transaction);
  void take(uint64_t job, Taken* taken) const;
  void drop(const std::map<uint64_t, size_t>& taken);

  Kv& kv_;
  const std::string prefix_, carried_key_, name_key_;
  uint64_t name_ = 0;
  uint64_t first_ = 1, next_ = 1;  // numbers of what lies there: first_ <= n < next_
  uint64_t displaced_ = 0;
  std::map<uint64_t, std::vector<Event>> pending_;  // by job
  size_t pending_count_ = 0;
  bool joined_ = false;               // a batch is in the transaction that is to be committed
  bool doubtful_ = false;             // the batch next_ may be there
  std::map<uint64_t, size_t> taken_;  // of that batch: how many of pending_
};

}  // namespace tide::sched
