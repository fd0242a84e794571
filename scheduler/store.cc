#include "scheduler/store.h"

#include <string.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/log.h"
#include "scheduler/kv_sqlite.h"
#include "scheduler/old_record.h"

namespace tide::sched {
namespace {

constexpr const char* kRoot = "/tide/";
constexpr const char* kDrains = "drains/";  // and the server's name
constexpr uint32_t kReadAtOnce = 500;
constexpr uint64_t kKeyBytes = 64;  // about; of the keys of one job

// So that the order of keys is that of numbers.
std::string digits(uint64_t number) { return format("%020lu", (unsigned long)number); }
uint64_t number_of(const std::string& text) { return strtoull(text.c_str(), nullptr, 10); }

}  // namespace

Outcome Store::open(const std::string& directory, std::unique_ptr<Store>* store) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return Outcome::fail("cannot create the state directory " + directory + ": " + strerror(errno));
  }
  std::unique_ptr<Kv> kv;
  const Outcome opened = SqliteKv::open(directory + "/jobs.sqlite", upgrade_record, &kv);
  if (opened.ok()) *store = std::make_unique<Store>(std::move(kv), kRoot);
  return opened;
}

Store::Store(std::unique_ptr<Kv> kv, std::string root) : kv_(std::move(kv)), root_(std::move(root)) {}

std::string Store::live_key(uint64_t number) const { return root_ + "jobs/live/" + digits(number); }
std::string Store::ended_key(uint64_t number) const { return root_ + "jobs/ended/" + digits(number); }

std::vector<std::pair<std::string, std::string>> Store::entries_of(const std::vector<JobRecord>& jobs,
                                                                   uint64_t last_number) {
  std::map<std::string, std::string> entries;  // the newest of a name stays
  for (const JobRecord& job : jobs) {
    const char* const kind = job.phase == Phase::kEnded ? "jobs/ended/" : "jobs/live/";
    entries[kRoot + (kind + digits(job.number))] = to_bytes(job);
    if (!job.name.empty()) entries[std::string(kRoot) + "names/" + job.name] = digits(job.number);
    last_number = std::max(last_number, job.number);
  }
  entries[std::string(kRoot) + "last"] = digits(last_number);
  return {entries.begin(), entries.end()};
}

void Store::write_only_in(const std::string& leader, uint64_t term) {
  leader_ = leader;
  term_ = term;
  deposed_ = false;
}

void Store::guard(Transaction* transaction) const {
  if (!leader_.empty()) transaction->compares.push_back({leader_, Compare::What::kCreated, term_});
}

// A comparison did not hold; `*again`: but for that of the term, so that another try may do.
Outcome Store::why_refused(bool* again) {
  std::vector<Entry> leader;
  if (!leader_.empty()) {
    if (Outcome o = kv_->range(one_key(leader_), &leader); !o.ok()) return o;
    deposed_ |= leader.empty() || leader[0].created != term_;
  }
  *again = !deposed_;
  return Outcome::fail(deposed_ ? "this scheduler is not the leader any more; try again, the next one goes on"
                                : "the record of jobs " + path() + " was changed by somebody else; try again");
}

// Once more, where that may help.
template <typename Try>
Outcome Store::twice(Try&& once) {
  bool again = true;
  const Outcome first = once(&again);
  return first.ok() || !again ? first : once(&again);
}

Outcome Store::know(const std::string& key, uint64_t* modified) {
  std::vector<Entry> entries;
  if (Outcome o = kv_->range(one_key(key), &entries); !o.ok()) return o;
  *modified = entries.empty() ? 0 : entries[0].modified;
  return {};
}

Outcome Store::read_numbers() {
  std::vector<Entry> entries;
  if (Outcome o = kv_->range(one_key(root_ + "last"), &entries); !o.ok()) return o;
  numbers_ = {.known = true};
  if (!entries.empty()) numbers_ = {true, number_of(entries[0].value), entries[0].modified};
  return {};
}

// Of a transaction that the outbox may have joined.
Outcome Store::commit(const Transaction& transaction, Committed* committed) {
  const Outcome outcome = kv_->commit(transaction, committed);
  if (outbox_ != nullptr) outbox_->done(outcome.ok(), committed->done);
  return outcome;
}

Outcome Store::tell(Outbox* outbox) {
  outbox_ = outbox;
  if (outbox == nullptr) return {};
  Transaction transaction;
  guard(&transaction);
  return outbox->load(std::move(transaction));
}

Outcome Store::write_outbox(const std::function<bool(uint64_t)>& has_record) {
  return twice([&](bool* again) {
    *again = kv_->tries() > 1;
    Transaction transaction;
    guard(&transaction);
    Committed committed;
    if (Outcome o = outbox_->join_rest(has_record, &transaction); !o.ok()) return o;
    if (transaction.changes.empty()) return Outcome();  // no batch of it
    const Outcome outcome = commit(transaction, &committed);
    return !outcome.ok() || committed.done ? outcome : why_refused(again);
  });
}

Outcome Store::carried(uint64_t number) {
  Transaction transaction;
  guard(&transaction);
  outbox_->forget(number, &transaction);
  Committed committed;
  bool again = false;
  const Outcome outcome = kv_->commit(transaction, &committed);
  if (outcome.ok() && committed.done) outbox_->forgotten(number);
  return !outcome.ok() || committed.done ? outcome : why_refused(&again);
}

// The try before this one was carried out.
bool Store::added_unheard(const std::vector<JobRecord*>& jobs) {
  if (tried_ == 0 || numbers_.last + 1 < tried_ + jobs.size()) return false;
  const auto there = find(tried_);
  if (!there || there->token != jobs[0]->token) return false;
  for (size_t i = 0; i < jobs.size(); ++i) jobs[i]->number = tried_ + i;
  doubtful_from_ = doubtful_to_ = tried_ = 0;
  return true;
}

// What is doubtful, but for jobs that are written now.
void Store::add_forgetting(uint64_t first, uint64_t last, Transaction* transaction) const {
  for (uint64_t number = doubtful_from_; number < doubtful_to_; ++number) {
    if (number < first || number > last) transaction->changes.push_back({.key = live_key(number), .value = {}});
  }
}

Transaction Store::addition_of(const std::vector<JobRecord>& jobs) const {
  Transaction transaction;
  guard(&transaction);
  transaction.compares.push_back({root_ + "last", Compare::What::kModified, numbers_.modified});
  auto& changes = transaction.changes;
  changes.push_back({.key = root_ + "last", .value = digits(jobs.back().number)});
  std::map<std::string, uint64_t> names;  // the newest of a name stays
  for (const JobRecord& job : jobs) {
    changes.push_back({.key = live_key(job.number), .value = to_bytes(job)});
    if (!job.name.empty()) names[job.name] = job.number;
  }
  for (const auto& [name, number] : names) changes.push_back({.key = name_key(name), .value = digits(number)});
  add_forgetting(jobs.front().number, jobs.back().number, &transaction);
  return transaction;
}

// Where it is too much to be done beside: in a transaction of its own, after which none of them can come any more.
Outcome Store::forget_doubtful() {
  Transaction transaction;
  guard(&transaction);
  transaction.compares.push_back({root_ + "last", Compare::What::kModified, numbers_.modified});
  transaction.changes.push_back({.key = root_ + "last", .value = digits(numbers_.last)});
  add_forgetting(0, 0, &transaction);
  Committed committed;
  const Outcome outcome = commit(transaction, &committed);
  numbers_.known = outcome.ok() && committed.done;
  if (!numbers_.known) return outcome.ok() ? Outcome::fail("the record of jobs was changed; try again") : outcome;
  numbers_.modified = committed.revision;
  doubtful_from_ = doubtful_to_ = tried_ = 0;
  return {};
}

Outcome Store::try_to_add(const std::vector<JobRecord*>& jobs, bool* again) {
  *again = kv_->tries() > 1;
  if (!numbers_.known) {
    if (Outcome o = read_numbers(); !o.ok()) return o;
  }
  if (added_unheard(jobs)) return {};
  if (doubtful_to_ - doubtful_from_ > kAddMax) {
    if (Outcome o = forget_doubtful(); !o.ok()) return o;
  }
  const uint64_t first = numbers_.last + 1;
  std::vector<JobRecord> numbered;
  for (const JobRecord* job : jobs) {
    numbered.push_back(*job);
    numbered.back().number = numbers_.last + numbered.size();
  }
  Transaction transaction = addition_of(numbered);
  if (outbox_ != nullptr) {
    if (Outcome o = outbox_->join_submissions(numbered, &transaction); !o.ok()) return o;
  }
  Committed committed;
  const Outcome outcome = commit(transaction, &committed);
  numbers_.known = outcome.ok() && committed.done;
  if (!outcome.ok()) {
    doubtful_from_ = doubtful_from_ != 0 ? std::min(doubtful_from_, first) : first;
    doubtful_to_ = std::max(doubtful_to_, first + jobs.size());
    tried_ = first;
    return outcome;
  }
  if (!committed.done) return why_refused(again);
  doubtful_from_ = doubtful_to_ = tried_ = 0;
  numbers_ = {true, first + jobs.size() - 1, committed.revision};
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i]->number = first + i;
    modified_[first + i] = committed.revision;
  }
  return {};
}

Outcome Store::add(const std::vector<JobRecord*>& jobs) {
  return twice([&](bool* again) { return try_to_add(jobs, again); });
}

Outcome Store::try_to_update(const std::vector<Serialised>& jobs, bool* again) {
  *again = kv_->tries() > 1;
  Transaction transaction;
  guard(&transaction);
  for (const auto& [job, bytes] : jobs) {
    const std::string key = live_key(job->number);
    const auto known = modified_.find(job->number);
    uint64_t modified = known != modified_.end() ? known->second : 0;
    if (known == modified_.end()) {
      if (Outcome o = know(key, &modified); !o.ok()) return o;
    }
    transaction.compares.push_back({key, Compare::What::kModified, modified});
    const bool ended = job->phase == Phase::kEnded;
    if (ended) transaction.changes.push_back({.key = key, .value = {}});
    transaction.changes.push_back({.key = ended ? ended_key(job->number) : key, .value = bytes});
  }
  if (outbox_ != nullptr) {
    std::vector<uint64_t> numbers;
    for (const auto& [job, bytes] : jobs) numbers.push_back(job->number);
    if (Outcome o = outbox_->join(numbers, &transaction); !o.ok()) return o;
  }
  Committed committed;
  const Outcome outcome = commit(transaction, &committed);
  for (const auto& [job, bytes] : jobs) {
    modified_.erase(job->number);
    if (outcome.ok() && committed.done && job->phase != Phase::kEnded) modified_[job->number] = committed.revision;
  }
  if (!outcome.ok() || committed.done) return outcome;
  return why_refused(again);
}

Outcome Store::update(const std::vector<const JobRecord*>& jobs) {
  std::vector<Serialised> some;
  uint64_t bytes = 0;
  const auto write = [&] {
    const Outcome outcome = twice([&](bool* again) { return try_to_update(some, again); });
    some.clear();
    bytes = 0;
    return outcome;
  };
  for (const JobRecord* job : jobs) {
    std::string value = to_bytes(*job);
    if (!some.empty() && (some.size() * 2 + 2 >= kChangesMax || bytes + value.size() > kChangeBytesMax)) {
      if (Outcome o = write(); !o.ok()) return o;
    }
    bytes += value.size() + kKeyBytes;
    some.emplace_back(job, std::move(value));
  }
  return some.empty() ? Outcome() : write();
}

Outcome Store::read(const Range& range, std::vector<JobRecord>* jobs) {
  std::vector<Entry> entries;
  if (Outcome o = kv_->range(range, &entries); !o.ok()) return o;
  for (const Entry& entry : entries) {
    JobRecord& job = jobs->emplace_back();
    if (!from_bytes(entry.value, &job).ok()) {
      return Outcome::fail("the record of jobs " + path() + " is damaged: what lies under " + entry.key +
                           " is no job; move the record away to start with an empty one");
    }
    if (job.phase != Phase::kEnded) modified_[job.number] = entry.modified;
  }
  return {};
}

Outcome Store::put(const std::string& key, std::optional<std::string> value) {
  Transaction transaction;
  guard(&transaction);
  transaction.changes.push_back({.key = root_ + key, .value = std::move(value)});
  return twice([&](bool* again) {
    *again = kv_->tries() > 1;
    Committed committed;
    const Outcome outcome = kv_->commit(transaction, &committed);
    return !outcome.ok() || committed.done ? outcome : why_refused(again);
  });
}

Outcome Store::get(const std::string& key, std::optional<std::string>* value) {
  std::vector<Entry> entries;
  if (Outcome o = kv_->range(one_key(root_ + key), &entries); !o.ok()) return o;
  value->reset();
  if (!entries.empty()) *value = entries[0].value;
  return {};
}

Outcome Store::set_drain(const std::string& server, uint64_t since_ms) {
  return put(kDrains + server, since_ms != 0 ? std::optional(digits(since_ms)) : std::nullopt);
}

Outcome Store::load_drains(std::map<std::string, uint64_t>* drains) {
  const Range range = range_of(root_ + kDrains);
  std::vector<Entry> entries;
  if (Outcome o = kv_->range(range, &entries); !o.ok()) return o;
  drains->clear();
  for (const Entry& entry : entries) (*drains)[entry.key.substr(range.from.size())] = number_of(entry.value);
  return {};
}

Outcome Store::save_usage(const Usage& usage, uint64_t at_ms) { return put("usage", usage_bytes(usage, at_ms)); }

Outcome Store::load_usage(Usage* usage, uint64_t* at_ms) {
  std::optional<std::string> bytes;
  if (Outcome o = get("usage", &bytes); !o.ok()) return o;
  *at_ms = 0;
  usage->clear();
  if (!bytes || read_usage(*bytes, usage, at_ms).ok()) return {};
  return Outcome::fail("the record of jobs " + path() + " is damaged: what lies under " + root_ +
                       "usage is not what queues had; move the record away to start with an empty one");
}

Outcome Store::load_live(std::vector<JobRecord>* jobs) {
  std::vector<JobRecord> found;
  Range range = range_of(root_ + "jobs/live/");
  range.limit = kReadAtOnce;
  for (size_t before = 1; before != found.size();) {
    before = found.size();
    if (Outcome o = read(range, &found); !o.ok()) return o;
    if (found.size() < before + kReadAtOnce) break;
    range.from = live_key(found.back().number) + '\0';
  }
  *jobs = std::move(found);
  return {};
}

Outcome Store::load_ended(uint32_t newest_max, std::vector<JobRecord>* jobs) {
  Range range = range_of(root_ + "jobs/ended/");
  range.limit = newest_max;
  range.last_first = true;
  std::vector<JobRecord> found;
  const Outcome outcome = read(range, &found);
  if (outcome.ok()) *jobs = std::move(found);
  return outcome;
}

std::optional<JobRecord> Store::find(uint64_t number) {
  for (const std::string& key : {live_key(number), ended_key(number)}) {
    std::vector<JobRecord> found;
    if (!read(one_key(key), &found).ok()) return {};
    if (!found.empty()) return found[0];
  }
  return {};
}

std::optional<JobRecord> Store::find_named(const std::string& name) {
  std::vector<Entry> entries;
  if (!kv_->range(one_key(name_key(name)), &entries).ok() || entries.empty()) return {};
  return find(number_of(entries[0].value));
}

}  // namespace tide::sched
