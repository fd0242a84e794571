#include "scheduler/outbox.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "scheduler/token.h"

namespace tide::sched {
namespace {

std::string digits(uint64_t number) { return format("%020lu", (unsigned long)number); }
uint64_t number_of(const std::string& text) { return strtoull(text.c_str(), nullptr, 10); }

size_t bytes_about(const Event& event) {
  constexpr size_t kNumbers = 160;
  return kNumbers + event.queue.size() + event.user.size() + event.name.size() + event.text.size() + event.gpu.size() +
         event.model.size();
}

}  // namespace

Outbox::Outbox(Kv& kv, const std::string& root)
    : kv_(kv),
      prefix_(root + "outbox/batch/"),
      carried_key_(root + "outbox/carried"),
      name_key_(root + "outbox/name") {}

std::string Outbox::key(uint64_t number) const { return prefix_ + digits(number); }

Outcome Outbox::load(Transaction guard) {
  std::vector<Entry> entries;
  if (Outcome o = kv_.range(one_key(name_key_), &entries); !o.ok()) return o;
  if (entries.empty()) {
    std::string random;
    if (Outcome o = new_token(&random); !o.ok()) return o;
    uint64_t name = 1;
    for (const char c : random) name = name * 31 + uint8_t(c);
    guard.compares.push_back({name_key_, Compare::What::kCreated, 0});
    guard.changes.push_back({.key = name_key_, .value = digits(name)});
    Committed committed;
    if (Outcome o = kv_.commit(guard, &committed); !o.ok()) return o;
    if (Outcome o = kv_.range(one_key(name_key_), &entries); !o.ok()) return o;
    if (entries.empty())
      return Outcome::fail("the store " + kv_.name() + " did not take a name for what happens in it");
  }
  name_ = number_of(entries[0].value);
  if (Outcome o = kv_.range(one_key(carried_key_), &entries); !o.ok()) return o;
  const uint64_t carried = entries.empty() ? 0 : number_of(entries[0].value);
  Range range{.from = key(carried + 1), .to = range_of(prefix_).to, .limit = 1};
  if (Outcome o = kv_.range(range, &entries); !o.ok()) return o;
  first_ = next_ = carried + 1;
  if (entries.empty()) return {};
  first_ = number_of(entries[0].key.substr(prefix_.size()));
  range.last_first = true;
  if (Outcome o = kv_.range(range, &entries); !o.ok()) return o;
  next_ = entries.empty() ? first_ : number_of(entries[0].key.substr(prefix_.size())) + 1;
  return {};
}

void Outbox::note(Event event) {
  if (pending_count_ >= kOutboxPendingMax) {
    if (displaced_++ == 0)
      log(LogLevel::kWarning, "the store takes nothing: some of what happens is not in the history");
    return;
  }
  ++pending_count_;
  pending_[event.job].push_back(std::move(event));
}

// Whether the batch of which that was not known is there.
Outcome Outbox::settle() {
  if (!doubtful_) return {};
  std::vector<Entry> entries;
  if (Outcome o = kv_.range(one_key(key(next_)), &entries); !o.ok()) return o;
  doubtful_ = false;
  if (entries.empty()) return {};
  std::vector<Event> written;
  if (Outcome o = from_bytes(entries[0].value, &written); !o.ok()) return o;
  std::map<uint64_t, size_t> taken;
  for (const Event& event : written) taken[event.job] += event.kind != EventKind::kSubmitted ? 1 : 0;
  drop(taken);
  go_on();
  return {};
}

// The batch next_ is there.
void Outbox::go_on() {
  if (waiting() >= kOutboxBatchesMax) ++first_;
  ++next_;
}

void Outbox::take(uint64_t job, Taken* taken) const {
  const auto found = pending_.find(job);
  if (found == pending_.end() || taken->counts.count(job) != 0) return;
  size_t count = 0;
  for (const Event& event : found->second) {
    if (taken->events.size() >= kOutboxEventsMax || taken->bytes >= kOutboxBytesMax) break;
    taken->events.push_back(event);
    taken->bytes += bytes_about(event);
    ++count;
  }
  if (count != 0) taken->counts[job] = count;
}

void Outbox::drop(const std::map<uint64_t, size_t>& taken) {
  for (const auto& [job, all] : taken) {
    std::vector<Event>& events = pending_[job];
    const size_t count = std::min(all, events.size());
    events.erase(events.begin(), events.begin() + long(count));
    pending_count_ -= count;
    if (events.empty()) pending_.erase(job);
  }
}

Outcome Outbox::put(Taken taken, Transaction* transaction) {
  if (taken.events.empty()) return {};
  // A commit that was late must not write over it.
  transaction->compares.push_back({key(next_), Compare::What::kCreated, 0});
  transaction->changes.push_back({.key = key(next_), .value = to_bytes(taken.events)});
  if (waiting() >= kOutboxBatchesMax) transaction->changes.push_back({.key = key(first_), .value = {}});
  taken_ = std::move(taken.counts);
  joined_ = true;
  return {};
}

Outcome Outbox::join(const std::vector<uint64_t>& jobs, Transaction* transaction) {
  if (Outcome o = settle(); !o.ok()) return o;
  Taken taken;
  take(0, &taken);
  for (const uint64_t job : jobs) take(job, &taken);
  return put(std::move(taken), transaction);
}

Outcome Outbox::join_submissions(const std::vector<JobRecord>& jobs, Transaction* transaction) {
  if (Outcome o = settle(); !o.ok()) return o;
  Taken taken;
  for (const JobRecord& job : jobs) taken.events.push_back(submission_of(job));
  return put(std::move(taken), transaction);
}

Outcome Outbox::join_rest(const std::function<bool(uint64_t)>& has_record, Transaction* transaction) {
  if (Outcome o = settle(); !o.ok()) return o;
  Taken taken;
  for (const auto& [job, waiting] : pending_) {
    if (job == 0 || !has_record(job)) take(job, &taken);
  }
  return put(std::move(taken), transaction);
}

void Outbox::done(bool known, bool committed) {
  if (!std::exchange(joined_, false)) return;
  doubtful_ = !known || !committed;  // another try of before may have been carried out late
  if (doubtful_) return;
  drop(taken_);
  if (waiting() >= kOutboxBatchesMax && displaced_++ % 1000 == 0) {
    log(LogLevel::kError, "the outbox is full: batch %lu of what happened displaces batch %lu, which is lost",
        (unsigned long)next_, (unsigned long)first_);
  }
  go_on();
}

Outcome Outbox::read(std::vector<Batch>* batches) {
  std::vector<Entry> entries;
  const Range range{.from = key(first_), .to = key(next_), .limit = kOutboxReadMax};
  if (Outcome o = kv_.range(range, &entries); !o.ok()) return o;
  std::vector<Batch> found;
  for (const Entry& entry : entries) {
    Batch& batch = found.emplace_back();
    batch.number = number_of(entry.key.substr(prefix_.size()));
    if (!from_bytes(entry.value, &batch.events).ok())
      log(LogLevel::kError, "what lies under %s of %s are no events; they are left out of the history",
          entry.key.c_str(), kv_.name().c_str());
  }
  *batches = std::move(found);
  return {};
}

void Outbox::forget(uint64_t up_to, Transaction* transaction) const {
  for (uint64_t n = first_; n <= up_to && n < next_; ++n) transaction->changes.push_back({.key = key(n), .value = {}});
  transaction->changes.push_back({.key = carried_key_, .value = digits(up_to)});
}

void Outbox::forgotten(uint64_t up_to) { first_ = std::max(first_, std::min(up_to + 1, next_)); }

}  // namespace tide::sched
