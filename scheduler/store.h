#pragma once

// The pool's memory: every job that was ever acknowledged, and where its vGPUs were put. Lies over a Kv (kv.h), jobs
// being serialised values under keys; when a call has returned ok, the record is durable. Each write compares the
// revision of what it replaces, and the term of who writes, where there are several schedulers. Errors are sentences
// that name the store. Owned by one thread.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/outcome.h"
#include "scheduler/job_record.h"
#include "scheduler/kv.h"
#include "scheduler/outbox.h"
#include "scheduler/usage.h"

namespace tide::sched {

class Store {
 public:
  // In a SQLite file, jobs.sqlite, in `directory`; creates both if need be.
  static Outcome open(const std::string& directory, std::unique_ptr<Store>* store);
  // All keys begin with `root`, "/tide/" say.
  explicit Store(std::unique_ptr<Kv> kv, std::string root = "/tide/");
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  const std::string& path() const { return kv_->name(); }
  Kv& kv() { return *kv_; }
  const std::string& root() const { return root_; }

  // From now on nothing is written unless `leader` (a key) was made at the revision `term`; kNoTerm: nothing at all.
  static constexpr uint64_t kNoTerm = INT64_MAX;
  void write_only_in(const std::string& leader, uint64_t term);
  // A write was refused because of that: another scheduler leads, or none does.
  bool deposed() const { return deposed_; }

  // Gives `job` its number; of several, in their order.
  Outcome add(JobRecord* job) { return add(std::vector<JobRecord*>{job}); }
  // All of them or none. Requires: they fit into a transaction (kAddMax, and kAddBytesMax of to_bytes()).
  Outcome add(const std::vector<JobRecord*>& jobs);
  static constexpr size_t kAddMax = 32, kAddBytesMax = kChangeBytesMax / 4;
  Outcome update(const JobRecord& job) { return update(std::vector<const JobRecord*>{&job}); }
  // Few transactions for many jobs; where one failed, those after it were not tried, and any may be written.
  Outcome update(const std::vector<const JobRecord*>& jobs);
  Outcome load_live(std::vector<JobRecord>* jobs);                        // not ended, in order of submission
  Outcome load_ended(uint32_t newest_max, std::vector<JobRecord>* jobs);  // newest first
  std::optional<JobRecord> find(uint64_t number);
  std::optional<JobRecord> find_named(const std::string& name);  // the newest of that name
  // What queues had in the past, as it was `at_ms` (since 1970; 0: it was never written).
  Outcome save_usage(const Usage& usage, uint64_t at_ms);
  Outcome load_usage(Usage* usage, uint64_t* at_ms);

  // What happened to jobs goes into it together with their records. Null: nowhere.
  Outcome tell(Outbox* outbox);
  // Also what waits there for no job's record. Where nothing does, nothing is done.
  Outcome write_outbox(const std::function<bool(uint64_t)>& has_record);
  // The history has all up to this batch.
  Outcome carried(uint64_t number);

  // Servers that are being drained, and since when (1970); 0: not any more.
  Outcome set_drain(const std::string& server, uint64_t since_ms);
  Outcome load_drains(std::map<std::string, uint64_t>* drains);

  // These jobs as keys and values below "/tide/", for a record of another form.
  static std::vector<std::pair<std::string, std::string>> entries_of(const std::vector<JobRecord>& jobs,
                                                                     uint64_t last_number);

 private:
  struct Numbers {  // of the key that holds the last one that was given
    bool known = false;
    uint64_t last = 0, modified = 0;
  };
  using Serialised = std::pair<const JobRecord*, std::string>;
  std::string live_key(uint64_t number) const;
  std::string ended_key(uint64_t number) const;
  std::string name_key(const std::string& name) const { return root_ + "names/" + name; }
  void guard(Transaction* transaction) const;
  Outcome why_refused(bool* again);
  template <typename Try>
  Outcome twice(Try&& once);
  Outcome know(const std::string& key, uint64_t* modified);
  Outcome put(const std::string& key, std::optional<std::string> value);   // none: erases it
  Outcome get(const std::string& key, std::optional<std::string>* value);  // none: there is no such key
  Outcome read_numbers();
  Outcome commit(const Transaction& transaction, Committed* committed);
  bool added_unheard(const std::vector<JobRecord*>& jobs);
  void add_forgetting(uint64_t first, uint64_t last, Transaction* transaction) const;
  Outcome forget_doubtful();
  Transaction addition_of(const std::vector<JobRecord>& jobs) const;
  Outcome try_to_add(const std::vector<JobRecord*>& jobs, bool* again);
  Outcome try_to_update(const std::vector<Serialised>& jobs, bool* again);
  Outcome read(const Range& range, std::vector<JobRecord>* jobs);

  std::unique_ptr<Kv> kv_;
  const std::string root_;
  std::string leader_;  // empty: nobody else writes
  uint64_t term_ = 0;
  bool deposed_ = false;
  Outbox* outbox_ = nullptr;
  Numbers numbers_;
  // Jobs of these numbers may be in the store that nobody was told of; and the first of those that were tried last.
  uint64_t doubtful_from_ = 0, doubtful_to_ = 0, tried_ = 0;
  std::map<uint64_t, uint64_t> modified_;  // of live jobs, by number, as far as known
};

}  // namespace tide::sched
