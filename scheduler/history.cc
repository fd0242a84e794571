#include "scheduler/history.h"

#include <sqlite3.h>

#include <algorithm>

#include "base/log.h"
#include "scheduler/statement.h"

namespace tide::sched {
namespace {

constexpr uint64_t kVersion = 1;
constexpr int kBusyMs = 50;  // the scheduler decides nothing meanwhile
constexpr uint64_t kHourMs = 3'600'000;
constexpr uint64_t kHoursMax = 24 * 7;  // of one event; what lies before counts as of the first of them

constexpr const char* kSchema = R"(
  CREATE TABLE outboxes(id INTEGER PRIMARY KEY, last INTEGER NOT NULL, last_ms INTEGER NOT NULL);
  CREATE TABLE gaps(outbox INTEGER NOT NULL, batches INTEGER NOT NULL, from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL);
  CREATE TABLE jobs(outbox INTEGER NOT NULL, job INTEGER NOT NULL, queue TEXT NOT NULL, user TEXT NOT NULL,
    name TEXT NOT NULL, command TEXT NOT NULL DEFAULT '', gpus INTEGER NOT NULL DEFAULT 0,
    submitted_ms INTEGER NOT NULL DEFAULT 0, started_ms INTEGER NOT NULL DEFAULT 0,
    ended_ms INTEGER NOT NULL DEFAULT 0, status INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY(outbox, job)) WITHOUT ROWID;
  CREATE INDEX jobs_by_start ON jobs(started_ms);
  CREATE TABLE events(outbox INTEGER NOT NULL, batch INTEGER NOT NULL, position INTEGER NOT NULL,
    at_ms INTEGER NOT NULL, job INTEGER NOT NULL, kind TEXT NOT NULL, vgpu INTEGER NOT NULL, gpu TEXT NOT NULL,
    text TEXT NOT NULL, gpus_before INTEGER NOT NULL, gpus_after INTEGER NOT NULL, pause_ms REAL NOT NULL,
    bytes INTEGER NOT NULL, PRIMARY KEY(outbox, batch, position)) WITHOUT ROWID;
  CREATE INDEX events_by_job ON events(outbox, job);
  CREATE INDEX events_by_time ON events(at_ms);
  CREATE TABLE held(hour INTEGER NOT NULL, outbox INTEGER NOT NULL, job INTEGER NOT NULL, vgpu INTEGER NOT NULL,
    gpu TEXT NOT NULL, model TEXT NOT NULL, from_ms INTEGER NOT NULL, to_ms INTEGER NOT NULL, held_ms REAL NOT NULL,
    used_ms REAL NOT NULL, PRIMARY KEY(hour, outbox, job, vgpu, gpu)) WITHOUT ROWID;
  CREATE TABLE capacity(hour INTEGER NOT NULL, outbox INTEGER NOT NULL, model TEXT NOT NULL, from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL, gpu_ms REAL NOT NULL, PRIMARY KEY(hour, outbox, model)) WITHOUT ROWID;
)";

Outcome failure_of(sqlite3* db, const std::string& path, const char* what) {
  const int code = sqlite3_extended_errcode(db), low = code & 0xff;
  const char* hint = "";
  if (low == SQLITE_FULL || code == SQLITE_IOERR_WRITE || code == SQLITE_IOERR_FSYNC) {
    hint = "; is the disk full? Make room there: what happens meanwhile waits in the record of jobs";
  } else if (low == SQLITE_CORRUPT || low == SQLITE_NOTADB) {
    hint = "; the file is damaged: move it away, and a new one begins with what waits in the record of jobs";
  } else if (low == SQLITE_CANTOPEN || low == SQLITE_READONLY || low == SQLITE_PERM) {
    hint = "; check its directory and the permissions";
  }
  return Outcome::fail(format("cannot %s the history %s: %s%s", what, path.c_str(), sqlite3_errmsg(db), hint));
}

// So much of `event` as lies in one hour.
struct Piece {
  uint64_t hour = 0, from_ms = 0, to_ms = 0;
  double part = 1;
};

std::vector<Piece> pieces_of(uint64_t from_ms, uint64_t to_ms) {
  from_ms = std::min(from_ms, to_ms);
  if (to_ms - from_ms > kHoursMax * kHourMs) from_ms = to_ms - kHoursMax * kHourMs;
  std::vector<Piece> pieces;
  const double all = double(to_ms - from_ms);
  for (uint64_t at = from_ms; at < to_ms || pieces.empty();) {
    const uint64_t hour = at / kHourMs, end = std::min(to_ms, (hour + 1) * kHourMs);
    pieces.push_back({.hour = hour, .from_ms = at, .to_ms = end, .part = all > 0 ? double(end - at) / all : 1});
    at = std::max(end, at + 1);
  }
  return pieces;
}

constexpr const char* kVersionOf = "PRAGMA user_version";

}  // namespace

double Period::part_of(uint64_t from_ms, uint64_t to_ms) const {
  if (to_ms <= from_ms) return from_ms >= since_ms && from_ms < until_ms ? 1 : 0;
  const uint64_t begin = std::max(from_ms, since_ms), end = std::min(to_ms, until_ms);
  return end > begin ? double(end - begin) / double(to_ms - from_ms) : 0;
}

History::~History() { sqlite3_close(db_); }

Outcome History::failure(const char* what) const { return failure_of(db_, path_, what); }

Outcome History::run(const char* sql) {
  return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK ? Outcome() : failure("write");
}

Outcome History::open(const std::string& path, std::unique_ptr<History>* history) {
  std::unique_ptr<History> opened(new History(path));
  if (sqlite3_open(path.c_str(), &opened->db_) != SQLITE_OK) return opened->failure("open");
  sqlite3_busy_timeout(opened->db_, kBusyMs);
  if (Outcome o = opened->prepare(); !o.ok()) return o;
  *history = std::move(opened);
  return {};
}

Outcome History::prepare() {
  // Reports read while it is written.
  for (const char* sql : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"}) {
    if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return failure("open");
  }
  Outcome outcome = run("BEGIN IMMEDIATE");
  uint64_t have = 0;
  if (outcome.ok()) {
    Statement version(db_, kVersionOf);
    have = version.row() ? version.number() : 0;
    if (version.failed() || !version.done()) outcome = failure("read");
  }
  if (outcome.ok() && have > kVersion) {
    outcome =
        Outcome::fail(format("%s was written by a newer Tidepool (version %lu of the history, this one knows "
                             "%lu); give another one ([pool] history)",
                             path_.c_str(), (unsigned long)have, (unsigned long)kVersion));
  }
  if (outcome.ok() && have == 0) outcome = run(kSchema);
  if (outcome.ok() && have == 0) outcome = run(format("PRAGMA user_version=%lu", (unsigned long)kVersion).c_str());
  if (outcome.ok()) outcome = run("COMMIT");
  if (!outcome.ok()) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  return outcome;
}

Outcome History::last(uint64_t outbox, uint64_t* number) {
  Statement row(db_, "SELECT last FROM outboxes WHERE id=?");
  row.bind(outbox);
  *number = row.row() ? row.number() : 0;
  return row.failed() ? failure("read") : Outcome();
}

Outcome History::take(uint64_t outbox, const std::vector<Batch>& batches) {
  Outcome outcome = run("BEGIN IMMEDIATE");
  uint64_t have = 0;
  if (outcome.ok()) outcome = last(outbox, &have);
  for (const Batch& batch : batches) {
    if (!outcome.ok() || batch.number <= have) continue;
    outcome = take_batch(outbox, have, batch);
    have = batch.number;
  }
  if (outcome.ok()) outcome = run("COMMIT");
  if (!outcome.ok()) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  return outcome;
}

// `last`: the one before it that is here; what is missing between them was displaced in the outbox, or is another
// leader's.
Outcome History::take_batch(uint64_t outbox, uint64_t last, const Batch& batch) {
  const uint64_t at_ms = batch.events.empty() ? 0 : batch.events.front().at_ms;
  if (last != 0 && batch.number > last + 1) {
    Statement gap(db_, "INSERT INTO gaps SELECT ?1, ?2, last_ms, max(last_ms, ?3) FROM outboxes WHERE id=?1");
    gap.bind(outbox).bind(batch.number - last - 1).bind(at_ms);
    if (!gap.done()) return failure("write");
  }
  Statement number(db_,
                   "INSERT INTO outboxes VALUES(?1,?2,?3) ON CONFLICT(id) DO UPDATE SET last=?2, "
                   "last_ms=max(last_ms,?3)");
  number.bind(outbox).bind(batch.number).bind(at_ms);
  if (!number.done()) return failure("write");
  for (size_t i = 0; i < batch.events.size(); ++i) {
    const Event& event = batch.events[i];
    const bool amount = event.kind == EventKind::kHeld || event.kind == EventKind::kCapacity;
    Outcome outcome = take_event(outbox, event);
    if (outcome.ok() && !amount) outcome = keep(outbox, batch.number, i, event);
    if (!outcome.ok()) return outcome;
  }
  return {};
}

Outcome History::keep(uint64_t outbox, uint64_t batch, uint64_t position, const Event& event) {
  Statement row(db_, "INSERT INTO events VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)");
  row.bind(outbox).bind(batch).bind(position).bind(event.at_ms).bind(event.job).bind_text(to_text(event.kind));
  row.bind(event.vgpu).bind_text(event.gpu).bind_text(event.text).bind(event.before).bind(event.after);
  row.bind_real(event.pause_ms).bind(event.bytes);
  return row.done() ? Outcome() : failure("write");
}

Outcome History::take_event(uint64_t outbox, const Event& event) {
  switch (event.kind) {
    case EventKind::kSubmitted: {
      Statement row(db_,
                    "INSERT INTO jobs(outbox,job,queue,user,name,command,gpus,submitted_ms) "
                    "VALUES(?1,?2,?3,?4,?5,?6,?7,?8) ON CONFLICT(outbox,job) DO UPDATE SET command=?6, gpus=?7, "
                    "submitted_ms=?8");
      row.bind(outbox).bind(event.job).bind_text(event.queue).bind_text(event.user).bind_text(event.name);
      row.bind_text(event.text).bind(event.after).bind(event.at_ms);
      return row.done() ? Outcome() : failure("write");
    }
    case EventKind::kStarted: {
      Statement row(db_, "UPDATE jobs SET started_ms=? WHERE outbox=? AND job=?");
      row.bind(event.at_ms).bind(outbox).bind(event.job);
      return row.done() ? Outcome() : failure("write");
    }
    case EventKind::kEnded: {
      Statement row(db_, "UPDATE jobs SET ended_ms=?, status=?, reason=? WHERE outbox=? AND job=?");
      row.bind(event.at_ms).bind(uint64_t(int64_t(event.status))).bind_text(event.text).bind(outbox).bind(event.job);
      return row.done() ? Outcome() : failure("write");
    }
    case EventKind::kHeld:
      return add_held(outbox, event);
    case EventKind::kCapacity:
      return add_capacity(outbox, event);
    default:
      return {};
  }
}

// What is of an hour is put together.
Outcome History::add_held(uint64_t outbox, const Event& event) {
  // Its submission may be in no batch that came here.
  Statement job(db_, "INSERT OR IGNORE INTO jobs(outbox,job,queue,user,name) VALUES(?,?,?,?,?)");
  job.bind(outbox).bind(event.job).bind_text(event.queue).bind_text(event.user).bind_text(event.name);
  if (!job.done()) return failure("write");
  for (const Piece& piece : pieces_of(event.from_ms, event.at_ms)) {
    Statement row(db_,
                  "INSERT INTO held VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10) ON CONFLICT(hour,outbox,job,vgpu,gpu) DO "
                  "UPDATE SET from_ms=min(from_ms,?7), to_ms=max(to_ms,?8), held_ms=held_ms+?9, used_ms=used_ms+?10, "
                  "model=CASE WHEN model='' THEN ?6 ELSE model END");
    row.bind(piece.hour).bind(outbox).bind(event.job).bind(event.vgpu).bind_text(event.gpu).bind_text(event.model);
    row.bind(piece.from_ms).bind(piece.to_ms).bind_real(event.held_ms * piece.part);
    row.bind_real(event.used_ms * piece.part);
    if (!row.done()) return failure("write");
  }
  return {};
}

Outcome History::add_capacity(uint64_t outbox, const Event& event) {
  for (const Piece& piece : pieces_of(event.from_ms, event.at_ms)) {
    Statement row(db_,
                  "INSERT INTO capacity VALUES(?1,?2,?3,?4,?5,?6) ON CONFLICT(hour,outbox,model) DO UPDATE SET "
                  "from_ms=min(from_ms,?4), to_ms=max(to_ms,?5), gpu_ms=gpu_ms+?6");
    row.bind(piece.hour).bind(outbox).bind_text(event.model).bind(piece.from_ms).bind(piece.to_ms);
    row.bind_real(event.held_ms * piece.part);
    if (!row.done()) return failure("write");
  }
  return {};
}

Outcome History::forget_before(uint64_t wall_ms, bool* more) {
  *more = false;
  Outcome outcome = run("BEGIN IMMEDIATE");
  if (!outcome.ok()) return outcome;
  const int before = sqlite3_total_changes(db_);
  // Of jobs: who has ended before has also begun before, or never; there is an index of that.
  for (const char* sql :
       {"DELETE FROM held WHERE hour = (SELECT min(hour) FROM held) AND hour < ?/3600000",
        "DELETE FROM capacity WHERE hour = (SELECT min(hour) FROM capacity) AND hour < ?/3600000",
        "DELETE FROM events WHERE (outbox, batch, position) IN (SELECT outbox, batch, position FROM events WHERE "
        "at_ms < ? ORDER BY at_ms LIMIT 5000)",
        "DELETE FROM gaps WHERE to_ms < ?",
        "DELETE FROM jobs WHERE (outbox, job) IN (SELECT outbox, job FROM jobs WHERE started_ms < ?1 AND ended_ms <> 0 "
        "AND ended_ms < ?1 LIMIT 5000)"}) {
    Statement statement(db_, sql);
    statement.bind(wall_ms);
    if (!statement.done()) outcome = failure("write");
    if (!outcome.ok()) break;
  }
  if (outcome.ok()) outcome = run("COMMIT");
  if (!outcome.ok()) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  *more = outcome.ok() && sqlite3_total_changes(db_) != before;
  return outcome;
}

namespace {

// For one report.
class Asked {
 public:
  Asked(const std::string& path, const Period& period) : path_(path), period_(period) {
    opened_ = sqlite3_open_v2(path.c_str(), &db_, SQLITE_OPEN_READWRITE, nullptr) == SQLITE_OK;
    sqlite3_busy_timeout(db_, 2000);
  }
  ~Asked() { sqlite3_close(db_); }
  Asked(const Asked&) = delete;
  Asked& operator=(const Asked&) = delete;

  Outcome read(HistoryReport* report) {
    if (!opened_) return failure_of(db_, path_, "open");
    // One moment for all of it.
    if (sqlite3_exec(db_, "BEGIN", nullptr, nullptr, nullptr) != SQLITE_OK) return failure_of(db_, path_, "read");
    const bool read = extent(report) && uses(report) && starts(report) && capacity(report) && gaps(report);
    return read ? Outcome() : failure_of(db_, path_, "read");
  }

 private:
  uint64_t first_hour() const { return period_.since_ms / kHourMs; }
  uint64_t last_hour() const { return period_.until_ms / kHourMs; }

  bool extent(HistoryReport* report) {
    Statement row(db_,
                  "SELECT min(from_ms), max(to_ms) FROM (SELECT min(from_ms) AS from_ms, max(to_ms) AS to_ms FROM "
                  "capacity WHERE hour IN ((SELECT min(hour) FROM capacity), (SELECT max(hour) FROM capacity)) "
                  "UNION ALL SELECT min(at_ms), max(at_ms) FROM events)");
    if (row.row()) report->first_ms = row.number(), report->last_ms = row.number();
    return !row.failed();
  }
  bool uses(HistoryReport* report) {
    Statement rows(db_,
                   "SELECT h.outbox, h.job, j.queue, j.user, j.name, h.model, h.from_ms, h.to_ms, h.held_ms, h.used_ms "
                   "FROM held h JOIN jobs j USING(outbox, job) WHERE hour BETWEEN ? AND ?");
    rows.bind(first_hour()).bind(last_hour());
    std::map<std::tuple<uint64_t, uint64_t, std::string>, JobUse> by_job;
    while (rows.row()) {
      JobUse row{.outbox = rows.number(), .job = rows.number()};
      row.queue = rows.text(), row.user = rows.text(), row.name = rows.text(), row.model = rows.text();
      const uint64_t from_ms = rows.number(), to_ms = rows.number();
      const double part = period_.part_of(from_ms, to_ms);
      const double held_ms = rows.real() * part, used_ms = rows.real() * part;
      if (part <= 0) continue;
      JobUse& use = by_job.try_emplace({row.outbox, row.job, row.model}, row).first->second;
      use.held_ms += held_ms;
      use.used_ms += used_ms;
    }
    for (auto& [key, use] : by_job) report->uses.push_back(std::move(use));
    return !rows.failed();
  }
  bool starts(HistoryReport* report) {
    Statement rows(db_,
                   "SELECT outbox, job, queue, user, name, started_ms-submitted_ms FROM jobs WHERE started_ms >= ? AND "
                   "started_ms < ? AND submitted_ms <> 0");
    rows.bind(period_.since_ms).bind(period_.until_ms);
    while (rows.row()) {
      JobStart start{.outbox = rows.number(), .job = rows.number()};
      start.queue = rows.text(), start.user = rows.text(), start.name = rows.text();
      const int64_t wait = int64_t(rows.number());
      start.wait_ms = uint64_t(std::max<int64_t>(wait, 0));
      report->starts.push_back(std::move(start));
    }
    return !rows.failed();
  }
  bool capacity(HistoryReport* report) {
    Statement rows(db_, "SELECT from_ms, to_ms, gpu_ms FROM capacity WHERE hour BETWEEN ? AND ?");
    rows.bind(first_hour()).bind(last_hour());
    while (rows.row()) {
      const uint64_t from_ms = rows.number(), to_ms = rows.number();
      report->capacity_ms += rows.real() * period_.part_of(from_ms, to_ms);
    }
    return !rows.failed();
  }
  bool gaps(HistoryReport* report) {
    Statement rows(db_, "SELECT batches, from_ms, to_ms FROM gaps WHERE to_ms >= ? AND from_ms < ?");
    rows.bind(period_.since_ms).bind(period_.until_ms);
    while (rows.row()) {
      report->gaps.push_back({.batches = rows.number(), .from_ms = rows.number(), .to_ms = rows.number()});
    }
    return !rows.failed();
  }

  const std::string path_;
  const Period period_;
  sqlite3* db_ = nullptr;
  bool opened_ = false;
};

}  // namespace

Outcome read_report(const std::string& path, const Period& period, HistoryReport* report) {
  HistoryReport read;
  const Outcome outcome = Asked(path, period).read(&read);
  if (outcome.ok()) *report = std::move(read);
  return outcome;
}

}  // namespace tide::sched
