#include "scheduler/recorder.h"

#include <kj/debug.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/remote_error.h"

#ifndef TIDE_VERSION
#define TIDE_VERSION "0"
#endif

namespace tide::sched {
namespace {

constexpr const char* kNothingRecorded = "this scheduler records no decisions; `tide status` says why";

bool same_changes(const std::vector<Decided>& a, const std::vector<Decided>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Decided& x, const Decided& y) {
    return x.job == y.job && x.decision.running == y.decision.running && x.decision.places == y.decision.places;
  });
}

}  // namespace

Recorder::~Recorder() {
  {
    const std::lock_guard lock(mu_);
    ending_ = true;
  }
  news_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Recorder::give(Task task) {
  {
    const std::lock_guard lock(mu_);
    tasks_.push_back(std::move(task));
  }
  news_.notify_one();
}

// What was noted before the end is written.
void Recorder::work() {
  std::optional<DecisionFiles> files;
  for (;;) {
    std::unique_lock lock(mu_);
    news_.wait(lock, [this] { return ending_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task(files);
  }
}

void Recorder::keep(const std::string& directory, uint64_t bytes_max) {
  on_ = !directory.empty() && bytes_max != 0;
  if (on_ && !thread_.joinable()) {
    const SignalsBlocked blocked;
    const Outcome started = thread_.start([this] { work(); });
    on_ = started.ok();
    if (!on_) log(LogLevel::kWarning, "decisions are not recorded: %s", started.message().c_str());
  }
  const bool another = directory != directory_;
  directory_ = directory;
  {
    const std::lock_guard lock(mu_);
    status_.directory = on_ ? directory : "";
    status_.bytes_max = bytes_max;
  }
  if (!on_) return;
  give([this, directory, bytes_max, another](std::optional<DecisionFiles>& files) {
    if (files && !another) {
      files->keep(bytes_max);
      return tell({}, &*files);
    }
    files.reset();
    const Outcome opened = DecisionFiles::open(directory, bytes_max, &files);
    tell(opened, files ? &*files : nullptr);
  });
}

// For `tide status`, and once for the log.
void Recorder::tell(const Outcome& outcome, const DecisionFiles* files) {
  const std::lock_guard lock(mu_);
  if (outcome.ok() && !status_.problem.empty()) log(LogLevel::kInfo, "decisions are recorded again");
  if (!outcome.ok() && status_.problem.empty())
    log(LogLevel::kWarning, "decisions are not recorded: %s", outcome.message().c_str());
  status_.problem = outcome.message();
  if (files == nullptr) return;
  status_.first = files->first();
  status_.last = files->last();
  status_.bytes = files->bytes();
}

void Recorder::write(Snapshot* snapshot, std::optional<DecisionFiles>& files) {
  std::string directory;
  uint64_t bytes_max = 0;
  {
    const std::lock_guard lock(mu_);
    pending_jobs_ -= snapshot->state.jobs.size() + 1;
    directory = status_.directory;
    bytes_max = status_.bytes_max;
  }
  Outcome outcome;
  if (!files) outcome = DecisionFiles::open(directory, bytes_max, &files);  // perhaps it can be opened now
  if (outcome.ok()) outcome = files->append(snapshot);
  tell(outcome, files ? &*files : nullptr);
  if (outcome.ok()) return;
  const std::lock_guard lock(mu_);
  ++status_.left_out;
}

// Whether somebody waits about whom nothing was recorded. Adds those whose reason is new.
bool Recorder::note_waiting(const State& state, const Assignment& answer, std::vector<Decided>* decided) {
  bool news = false;
  std::unordered_map<std::string, std::string> waiting;
  for (const JobView& job : state.jobs) {
    if (job.running || job.suspended) continue;
    const auto found = answer.find(job.id);
    if (found != answer.end() && found->second.running) continue;
    const std::string reason = found == answer.end() ? "" : found->second.reason;
    const auto known = waiting_.find(job.id);
    news |= known == waiting_.end();
    const bool other = known == waiting_.end() || (known->second != reason && !reason.empty());
    if (other) decided->push_back({job.id, {.reason = reason, .places = job.places}, false, job.places});
    waiting.emplace(job.id, known == waiting_.end() ? "" : std::move(known->second));
  }
  waiting_ = std::move(waiting);
  return news;
}

void Recorder::note(State state, const Assignment& answer) {
  if (!on_) return;
  std::vector<Decided> changes = changes_of(state, answer), waits;
  const bool again = same_changes(changes, last_changes_);
  const bool news = note_waiting(state, answer, &waits);
  last_changes_ = changes;
  if (!news && (changes.empty() || again)) return;
  for (const Decided& each : waits) waiting_[each.job] = each.decision.reason;
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->at_ms = state.now_ms != 0 ? state.now_ms : wall_seconds() * 1000;
  snapshot->version = TIDE_VERSION;
  snapshot->answer = std::move(changes);
  snapshot->answer.insert(snapshot->answer.end(), waits.begin(), waits.end());
  snapshot->state = std::move(state);
  {
    const std::lock_guard lock(mu_);
    if (pending_jobs_ != 0 && pending_jobs_ + snapshot->state.jobs.size() > kPendingJobsMax) {
      ++status_.left_out;
      return;
    }
    pending_jobs_ += snapshot->state.jobs.size() + 1;
  }
  give([this, snapshot](std::optional<DecisionFiles>& files) { write(snapshot.get(), files); });
}

std::string Recorder::file_of(State state) {
  Snapshot snapshot;
  snapshot.at_ms = state.now_ms != 0 ? state.now_ms : wall_seconds() * 1000;
  snapshot.version = TIDE_VERSION;
  snapshot.state = std::move(state);
  return to_bytes(snapshot);
}

// Fulfilled here when the thread has done it, behind all that was given before.
kj::Promise<void> Recorder::done(Task task) {
  auto pair = kj::newPromiseAndCrossThreadFulfiller<void>();
  using Fulfiller = kj::Own<kj::CrossThreadPromiseFulfiller<void>>;
  const auto fulfiller = std::make_shared<Fulfiller>(kj::mv(pair.fulfiller));
  give([fulfiller, task = std::move(task)](std::optional<DecisionFiles>& files) {
    task(files);
    (*fulfiller)->fulfill();
  });
  return kj::mv(pair.promise);
}

kj::Promise<std::string> Recorder::fetch(Which which) {
  if (!on_) return error_for_caller(kNothingRecorded);
  struct Found {
    Outcome outcome = Outcome::fail("no decision has been recorded yet");
    std::string bytes;
  };
  const auto found = std::make_shared<Found>();
  const Task find = [found, which](std::optional<DecisionFiles>& files) {
    Snapshot snapshot;
    if (files) found->outcome = files->find(which, &snapshot);
    if (found->outcome.ok()) found->bytes = to_bytes(snapshot);
  };
  return done(find).then([found]() -> kj::Promise<std::string> {
    if (!found->outcome.ok()) return error_for_caller(found->outcome.message());
    return std::move(found->bytes);
  });
}

kj::Promise<std::vector<JobDecision>> Recorder::about(std::string job) {
  if (!on_) return error_for_caller(kNothingRecorded);
  const auto all = std::make_shared<std::vector<JobDecision>>();
  const Task look = [all, job = std::move(job)](std::optional<DecisionFiles>& files) {
    if (files) *all = files->about(job, kHistoryMax);
  };
  return done(look).then([all] { return std::move(*all); });
}

JournalStatus Recorder::status() {
  const std::lock_guard lock(mu_);
  return status_;
}

}  // namespace tide::sched
