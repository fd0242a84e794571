#include "scheduler/books.h"

#include <kj/thread.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/remote_error.h"

namespace tide::sched {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint32_t kCarriesAtOnce = 16;

}  // namespace

Books::Books(Ledger& ledger, Store& store)
    : ledger_(ledger), store_(store), boot_(this_boot()), accounts_([this](Event event) {
        if (begun()) outbox_->note(std::move(event));
      }) {}

Moment Books::now() const { return {.clock_ns = now_ns(), .wall_ms = wall_seconds() * 1000, .boot = boot_}; }

Outcome Books::begin() {
  if (path_.empty()) return {};
  outbox_ = std::make_unique<Outbox>(store_.kv(), store_.root());
  if (Outcome o = store_.tell(outbox_.get()); !o.ok()) return o;
  for (const auto& [number, job] : ledger_.jobs.read()) accounts_.take_over(job, now());
  return {};
}

void Books::close(const std::vector<Job*>& jobs) {
  if (!begun()) return;
  for (Job* job : jobs) accounts_.close(ledger_, job, now());
}

void Books::note_move(const Job& job, uint32_t vgpu, const GpuId& from, const MoveTotals& totals) {
  if (begun()) accounts_.note_move(job, vgpu, from, totals, now());
}

void Books::note_recovery(const Job& job, uint32_t vgpu) {
  if (begun()) accounts_.note_recovery(job, vgpu, now());
}

std::vector<Job*> Books::count() {
  std::vector<Job*> jobs;
  if (!begun()) return jobs;
  const Moment moment = now();
  accounts_.count(ledger_, moment);
  size_t events = 0;
  for (const auto& [number, job] : ledger_.jobs.read()) {
    if (jobs.size() >= kCountedAtOnce || events >= kOutboxEventsMax / 2) break;
    // What could not be written is tried again anyway.
    const bool waits = !job.dirty && (outbox_->waits_for(number) || accounts_.due(job, moment.clock_ns));
    if (!waits) continue;
    jobs.push_back(ledger_.jobs.quietly(number));  // nothing changes that a decision looks at
    events += job.vgpus.size();
  }
  return jobs;
}

bool Books::wants_usage(uint64_t now) {
  if (!begun() || now < ask_ns_) return false;
  ask_ns_ = now + kAskUsageMs * kMs;
  return true;
}

void Books::fail(const Outcome& outcome, uint64_t now) {
  if (problem_.empty()) log(LogLevel::kError, "%s; jobs go on", outcome.message().c_str());
  problem_ = outcome.message();
  history_.reset();
  carry_ns_ = now + kHistoryAgainMs * kMs;
}

void Books::carry(uint64_t now) {
  if (!begun() || now < carry_ns_) return;
  carry_ns_ = now + kCarryMs * kMs;
  const auto has_record = [this](uint64_t job) { return ledger_.jobs.count(job) != 0; };
  if (const Outcome o = store_.write_outbox(has_record); !o.ok())
    return log(LogLevel::kDebug, "what happened waits: %s", o.message().c_str());
  const bool again = take_some();
  if (again) carry_ns_ = now;
}

void Books::finish() {
  carry_ns_ = 0;
  carry(now_ns());
}

// Whether there is more.
bool Books::take_some() {
  const uint64_t now = now_ns();
  Outcome outcome;
  if (history_ == nullptr) outcome = History::open(path_, &history_);
  if (outcome.ok() && now >= forget_ns_) {
    forget_ns_ = now + kForgetMs * kMs;
    const uint64_t wall_ms = wall_seconds() * 1000;
    const uint64_t keep_ms = ledger_.history_keep_ms;
    bool more = false;
    if (wall_ms > keep_ms) outcome = history_->forget_before(wall_ms - keep_ms, &more);
    if (more) forget_ns_ = now;
  }
  std::vector<Batch> batches;
  if (outcome.ok() && outbox_->waiting() != 0) {
    if (const Outcome o = outbox_->read(&batches); !o.ok()) return false;  // the store's own matter
    outcome = history_->take(outbox_->name(), batches);
  }
  if (!outcome.ok()) {
    fail(outcome, now);
    return false;
  }
  if (!problem_.empty()) log(LogLevel::kInfo, "the history %s is written again", path_.c_str());
  problem_.clear();
  if (batches.empty()) return false;
  const Outcome told = store_.carried(batches.back().number);
  if (!told.ok()) log(LogLevel::kDebug, "carried once more, later: %s", told.message().c_str());
  return told.ok() && outbox_->waiting() != 0;
}

BooksState Books::state() const {
  BooksState state{.kept = begun(), .path = path_, .problem = problem_};
  if (begun()) state.waiting = outbox_->waiting(), state.lost = outbox_->displaced();
  return state;
}

// Of what is not in the history yet. What waits in the outbox was carried before it is asked, or cannot be.
void Books::add_open(const Period& period, HistoryReport* report) const {
  const Moment moment = now();
  if (report->first_ms == 0) report->first_ms = moment.wall_ms;
  report->last_ms = std::max(report->last_ms, moment.wall_ms);
  for (const Event& event : accounts_.open(moment)) {
    const double part = period.part_of(event.from_ms, event.at_ms);
    if (part <= 0) continue;
    report->first_ms = std::min(report->first_ms, event.from_ms);
    if (event.kind == EventKind::kCapacity) {
      report->capacity_ms += event.held_ms * part;
      continue;
    }
    report->uses.push_back({.outbox = outbox_->name(),
                            .job = event.job,
                            .queue = event.queue,
                            .user = event.user,
                            .name = event.name,
                            .model = event.model,
                            .held_ms = event.held_ms * part,
                            .used_ms = event.used_ms * part});
  }
}

kj::Promise<HistoryReport> Books::report(Period period) {
  if (!begun()) return error_for_caller("this pool keeps no history");
  accounts_.count(ledger_, now());
  carry_ns_ = 0;
  for (uint32_t i = 0; i < kCarriesAtOnce && carry_ns_ <= now_ns(); ++i) carry(now_ns());
  auto answer = kj::newPromiseAndCrossThreadFulfiller<HistoryReport>();
  // The loop goes on meanwhile: a large history takes long to read.
  auto reads = [path = path_, period, fulfiller = kj::mv(answer.fulfiller)]() {
    HistoryReport found;
    const Outcome outcome = read_report(path, period, &found);
    if (outcome.ok()) return fulfiller->fulfill(kj::mv(found));
    fulfiller->reject(error_for_caller(outcome.message()));
  };
  auto thread = kj::heap<kj::Thread>(kj::mv(reads));
  return answer.promise.attach(kj::mv(thread)).then([this, period](HistoryReport found) {
    add_open(period, &found);
    return found;
  });
}

}  // namespace tide::sched
