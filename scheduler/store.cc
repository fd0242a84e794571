#include "scheduler/store.h"

#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/log.h"
#include "scheduler/statement.h"

namespace tide::sched {
namespace {

constexpr int kSchemaVersion = 4;

// AUTOINCREMENT: a number is not used again, not even that of the newest job after it was deleted.
constexpr const char* kSchema = R"(
  CREATE TABLE IF NOT EXISTS jobs(
    number INTEGER PRIMARY KEY AUTOINCREMENT, token BLOB NOT NULL, gpus INTEGER NOT NULL, min_gpus INTEGER NOT NULL,
    min_given INTEGER NOT NULL, memory_given INTEGER NOT NULL, memory_bytes INTEGER NOT NULL, queue TEXT NOT NULL,
    name TEXT NOT NULL, user TEXT NOT NULL, command TEXT NOT NULL, pid INTEGER NOT NULL, target INTEGER NOT NULL,
    pinned INTEGER NOT NULL, phase INTEGER NOT NULL, reason TEXT NOT NULL, submitted_ms INTEGER NOT NULL,
    started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, exit_status INTEGER NOT NULL, moves INTEGER NOT NULL);
  CREATE INDEX IF NOT EXISTS jobs_by_phase ON jobs(phase);
  CREATE TABLE IF NOT EXISTS vgpus(
    job INTEGER NOT NULL, vgpu INTEGER NOT NULL, server TEXT NOT NULL, gpu INTEGER NOT NULL, epoch INTEGER NOT NULL,
    device_info BLOB NOT NULL, PRIMARY KEY(job, vgpu));
)";

// What a record of version 1 lacks: jobs on no GPU. A new one gets it in the same way.
constexpr const char* kSince2 = R"(
  ALTER TABLE jobs ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE jobs ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE jobs ADD COLUMN idled INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE jobs ADD COLUMN idle_ms INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE vgpus ADD COLUMN home_server TEXT NOT NULL DEFAULT '';
  ALTER TABLE vgpus ADD COLUMN home_gpu INTEGER NOT NULL DEFAULT 0;
)";

// And one of version 2: checkpoints, jobs with a part of a GPU, and jobs that take turns (one without a
// row has not done so).
constexpr const char* kSince3 = R"(
  CREATE TABLE IF NOT EXISTS turns(
    job INTEGER PRIMARY KEY, excluded INTEGER NOT NULL, yielding INTEGER NOT NULL, ticket INTEGER NOT NULL,
    began_ms INTEGER NOT NULL, suspend_ms INTEGER NOT NULL, resume_ms INTEGER NOT NULL, strain INTEGER NOT NULL);
  ALTER TABLE jobs ADD COLUMN protect_ms INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE vgpus ADD COLUMN guard_server TEXT NOT NULL DEFAULT '';
  ALTER TABLE vgpus ADD COLUMN guard_epoch INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE vgpus ADD COLUMN guard_made_ms INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE jobs ADD COLUMN part INTEGER NOT NULL DEFAULT 1000;
)";

// And one of version 3: what queues had in the past.
constexpr const char* kSince4 = R"(
  CREATE TABLE IF NOT EXISTS usage(queue TEXT PRIMARY KEY, gpu_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL);
)";

constexpr const char* kColumns =
    "number, token, gpus, min_gpus, min_given, memory_given, memory_bytes, queue, name, user, command, pid, target, "
    "pinned, phase, reason, submitted_ms, started_ms, ended_ms, exit_status, moves, suspended, held, idled, "
    "idle_ms, protect_ms, part";

JobRecord read_job(Statement& row) {
  JobRecord job;
  job.number = row.number();
  job.token = row.text();
  job.gpus = uint32_t(row.number());
  job.min_gpus = uint32_t(row.number());
  job.min_given = row.number() != 0;
  job.memory_given = row.number();
  job.memory_bytes = row.number();
  job.queue = row.text();
  job.name = row.text();
  job.user = row.text();
  job.command = row.text();
  job.pid = uint32_t(row.number());
  job.target = uint32_t(row.number());
  job.pinned = row.number() != 0;
  job.phase = Phase(row.number());
  job.reason = row.text();
  job.submitted_ms = row.number();
  job.started_ms = row.number();
  job.ended_ms = row.number();
  job.exit_status = int32_t(row.number());
  job.moves = uint32_t(row.number());
  job.suspended = row.number() != 0;
  job.held = row.number() != 0;
  job.idled = row.number() != 0;
  job.idle_ms = row.number();
  job.protect_ms = row.number();
  job.part = uint32_t(row.number());
  return job;
}

}  // namespace

Outcome Store::open(const std::string& directory, std::unique_ptr<Store>* store) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return Outcome::fail("cannot create the state directory " + directory + ": " + strerror(errno));
  }
  std::unique_ptr<Store> opened(new Store(directory + "/jobs.sqlite"));
  if (sqlite3_open(opened->path_.c_str(), &opened->db_) != SQLITE_OK) return opened->failure("open");
  sqlite3_busy_timeout(opened->db_, 2000);
  const Outcome ready = opened->prepare_schema();
  if (!ready.ok()) return ready;
  *store = std::move(opened);
  return {};
}

Store::~Store() { sqlite3_close(db_); }

Outcome Store::failure(const char* what) const {
  const int code = sqlite3_extended_errcode(db_);
  const int low = code & 0xff;
  const char* hint = "";
  if (low == SQLITE_FULL || code == SQLITE_IOERR_WRITE || code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_TRUNCATE) {
    hint = "; is the disk full? Make room there, nothing is lost";
  } else if (low == SQLITE_BUSY) {
    hint = "; another tide-scheduler uses this state directory";
  } else if (low == SQLITE_CORRUPT || low == SQLITE_NOTADB) {
    hint = "; the file is damaged: move it away to start with an empty record of jobs";
  }
  return Outcome::fail(format("cannot %s the record of jobs %s: %s%s", what, path_.c_str(), sqlite3_errmsg(db_), hint));
}

Outcome Store::run(const char* sql) {
  return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK ? Outcome() : failure("write");
}

Outcome Store::prepare_schema() {
  // Exclusive: a second scheduler on the same directory is refused at once.
  for (const char* sql : {"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"}) {
    if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return failure("open");
  }
  Statement version(db_, "PRAGMA user_version");
  const uint64_t have = version.row() ? version.number() : 0;
  if (version.failed()) return failure("read");
  if (!version.done()) return failure("read");
  if (have > uint64_t(kSchemaVersion)) {
    return Outcome::fail(format("%s was written by a newer Tidepool (version %lu of the record, this one knows %d)",
                                path_.c_str(), (unsigned long)have, kSchemaVersion));
  }
  if (have == uint64_t(kSchemaVersion)) return {};
  const std::string sql = std::string("BEGIN IMMEDIATE;") + (have < 1 ? kSchema : "") + (have < 2 ? kSince2 : "") +
                          (have < 3 ? kSince3 : "") + kSince4 +
                          "PRAGMA user_version=" + std::to_string(kSchemaVersion) + ";COMMIT;";
  const Outcome made = run(sql.c_str());
  if (!made.ok()) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  return made;
}

Outcome Store::write_vgpus(const JobRecord& job, uint64_t number) {
  for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
    const VgpuRecord& vgpu = job.vgpus[v];
    Statement insert(db_, "INSERT OR REPLACE INTO vgpus VALUES(?,?,?,?,?,?,?,?,?,?,?)");
    insert.bind(number).bind(v).bind_text(vgpu.at.server).bind(vgpu.at.index).bind(vgpu.epoch);
    insert.bind_bytes(vgpu.device_info).bind_text(vgpu.home.server).bind(vgpu.home.index);
    insert.bind_text(vgpu.guard.server).bind(vgpu.guard.epoch).bind(vgpu.guard.made_ms);
    if (!insert.done()) return failure("write");
  }
  return {};
}

Outcome Store::write(const JobRecord& job, bool fresh, uint64_t* number) {
  const std::string sql = std::string(fresh ? "INSERT" : "INSERT OR REPLACE") + " INTO jobs(" +
                          (kColumns + (fresh ? 8 : 0)) + ") VALUES(" + (fresh ? "" : "?,") +
                          "?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
  Statement insert(db_, sql.c_str());
  if (!fresh) insert.bind(job.number);
  insert.bind_bytes(job.token).bind(job.gpus).bind(job.min_gpus).bind(job.min_given).bind(job.memory_given);
  insert.bind(job.memory_bytes).bind_text(job.queue).bind_text(job.name).bind_text(job.user).bind_text(job.command);
  insert.bind(job.pid).bind(job.target).bind(job.pinned).bind(uint64_t(job.phase)).bind_text(job.reason);
  insert.bind(job.submitted_ms).bind(job.started_ms).bind(job.ended_ms).bind(uint64_t(int64_t(job.exit_status)));
  insert.bind(job.moves).bind(job.suspended).bind(job.held).bind(job.idled).bind(job.idle_ms);
  insert.bind(job.protect_ms).bind(job.part);
  if (!insert.done()) return failure("write");
  *number = fresh ? uint64_t(sqlite3_last_insert_rowid(db_)) : job.number;
  const Outcome written = write_turn(job.turn, *number);
  return written.ok() ? write_vgpus(job, *number) : written;
}

Outcome Store::write_turn(const TurnRecord& turn, uint64_t number) {
  Statement insert(db_, "INSERT OR REPLACE INTO turns VALUES(?,?,?,?,?,?,?,?)");
  insert.bind(number).bind(turn.excluded).bind(turn.yielding).bind(turn.ticket).bind(turn.began_ms);
  insert.bind(turn.suspend_ms).bind(turn.resume_ms).bind(turn.strain);
  return insert.done() ? Outcome() : failure("write");
}

Outcome Store::add(JobRecord* job) {
  uint64_t number = 0;
  Outcome outcome = run("BEGIN IMMEDIATE");
  if (outcome.ok()) outcome = write(*job, true, &number);
  if (outcome.ok()) outcome = run("COMMIT");
  if (!outcome.ok()) {
    sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
    return outcome;
  }
  job->number = number;
  return {};
}

Outcome Store::update(const std::vector<const JobRecord*>& jobs) {
  if (jobs.empty()) return {};
  uint64_t number = 0;
  Outcome outcome = run("BEGIN IMMEDIATE");
  for (size_t i = 0; i < jobs.size() && outcome.ok(); ++i) outcome = write(*jobs[i], false, &number);
  if (outcome.ok()) outcome = run("COMMIT");
  if (!outcome.ok()) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  return outcome;
}

Outcome Store::read_vgpus(JobRecord* job) {
  Statement rows(db_,
                 "SELECT vgpu, server, gpu, epoch, device_info, home_server, home_gpu, guard_server, guard_epoch, "
                 "guard_made_ms FROM vgpus WHERE job=? ORDER BY vgpu");
  rows.bind(job->number);
  while (rows.row()) {
    const uint64_t vgpu = rows.number();
    if (vgpu >= 4096) return Outcome::fail("the record of jobs " + path_ + " is damaged: vGPU " + std::to_string(vgpu));
    if (job->vgpus.size() <= vgpu) job->vgpus.resize(vgpu + 1);
    VgpuRecord& record = job->vgpus[vgpu];
    record.at.server = rows.text();
    record.at.index = uint32_t(rows.number());
    record.epoch = rows.number();
    record.device_info = rows.text();
    record.home.server = rows.text();
    record.home.index = uint32_t(rows.number());
    record.guard.server = rows.text();
    record.guard.epoch = rows.number();
    record.guard.made_ms = rows.number();
  }
  return rows.failed() ? failure("read") : Outcome();
}

Outcome Store::read_turn(JobRecord* job) {
  Statement row(db_,
                "SELECT excluded, yielding, ticket, began_ms, suspend_ms, resume_ms, strain FROM turns WHERE job=?");
  row.bind(job->number);
  if (row.row()) {
    job->turn.excluded = row.number() != 0;
    job->turn.yielding = row.number() != 0;
    job->turn.ticket = row.number();
    job->turn.began_ms = row.number();
    job->turn.suspend_ms = row.number();
    job->turn.resume_ms = row.number();
    job->turn.strain = uint32_t(row.number());
  }
  return row.failed() ? failure("read") : Outcome();
}

Outcome Store::query(const std::string& where, const std::string* name, std::vector<JobRecord>* jobs) {
  Statement rows(db_, (std::string("SELECT ") + kColumns + " FROM jobs " + where).c_str());
  if (name != nullptr) rows.bind_text(*name);
  while (rows.row()) jobs->push_back(read_job(rows));
  if (rows.failed()) return failure("read");
  for (JobRecord& job : *jobs) {
    Outcome read = read_vgpus(&job);
    if (read.ok()) read = read_turn(&job);
    if (!read.ok()) return read;
  }
  return {};
}

Outcome Store::save_usage(const Usage& usage, uint64_t at_ms) {
  Outcome outcome = run("BEGIN IMMEDIATE; DELETE FROM usage;");
  for (const auto& [queue, gpu_s] : usage) {
    if (!outcome.ok()) break;
    Statement insert(db_, "INSERT INTO usage VALUES(?,?,?)");
    insert.bind_text(queue).bind(uint64_t(gpu_s * 1000)).bind(at_ms);
    if (!insert.done()) outcome = failure("write");
  }
  if (outcome.ok()) outcome = run("COMMIT");
  if (!outcome.ok()) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  return outcome;
}

Outcome Store::load_usage(Usage* usage, uint64_t* at_ms) {
  Statement rows(db_, "SELECT queue, gpu_ms, at_ms FROM usage");
  Usage loaded;
  uint64_t at = 0;
  while (rows.row()) {
    const std::string queue = rows.text();
    loaded[queue] = double(rows.number()) / 1000;
    at = rows.number();
  }
  if (rows.failed()) return failure("read");
  *usage = std::move(loaded);
  *at_ms = at;
  return {};
}

Outcome Store::load_live(std::vector<JobRecord>* jobs) {
  return query(format("WHERE phase != %d ORDER BY number", int(Phase::kEnded)), nullptr, jobs);
}

Outcome Store::load_ended(uint32_t newest_max, std::vector<JobRecord>* jobs) {
  return query(format("WHERE phase = %d ORDER BY number DESC LIMIT %u", int(Phase::kEnded), newest_max), nullptr, jobs);
}

std::optional<JobRecord> Store::find(uint64_t number) {
  std::vector<JobRecord> jobs;
  if (!query(format("WHERE number = %lu", (unsigned long)number), nullptr, &jobs).ok() || jobs.empty())
    return std::nullopt;
  return jobs[0];
}

std::optional<JobRecord> Store::find_named(const std::string& name) {
  std::vector<JobRecord> jobs;
  const Outcome found = query("WHERE name = ? ORDER BY number DESC LIMIT 1", &name, &jobs);
  if (!found.ok() || name.empty() || jobs.empty()) return std::nullopt;
  return jobs[0];
}

}  // namespace tide::sched
