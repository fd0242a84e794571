#include "scheduler/old_record.h"

#include <sqlite3.h>

#include "scheduler/job_record.h"
#include "scheduler/statement.h"
#include "scheduler/store.h"

namespace tide::sched {
namespace {

// What a record of version 1 lacks: jobs on no GPU.
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

Outcome failure(sqlite3* db, const std::string& path) {
  return Outcome::fail("cannot bring the record of jobs " + path + " to this release's form: " + sqlite3_errmsg(db));
}

Outcome read_vgpus(sqlite3* db, const std::string& path, JobRecord* job) {
  Statement rows(db,
                 "SELECT vgpu, server, gpu, epoch, device_info, home_server, home_gpu, guard_server, guard_epoch, "
                 "guard_made_ms FROM vgpus WHERE job=? ORDER BY vgpu");
  rows.bind(job->number);
  while (rows.row()) {
    const uint64_t vgpu = rows.number();
    if (vgpu >= 4096) return Outcome::fail("the record of jobs " + path + " is damaged: vGPU " + std::to_string(vgpu));
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
  return rows.failed() ? failure(db, path) : Outcome();
}

Outcome read_turn(sqlite3* db, const std::string& path, JobRecord* job) {
  Statement row(db,
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
  return row.failed() ? failure(db, path) : Outcome();
}

Outcome read_jobs(sqlite3* db, const std::string& path, std::vector<JobRecord>* jobs) {
  Statement rows(db, (std::string("SELECT ") + kColumns + " FROM jobs ORDER BY number").c_str());
  while (rows.row()) {
    JobRecord job = read_job(rows);
    Outcome read = read_vgpus(db, path, &job);
    if (read.ok()) read = read_turn(db, path, &job);
    if (!read.ok()) return read;
    jobs->push_back(std::move(job));
  }
  return rows.failed() ? failure(db, path) : Outcome();
}

// A number is not used again, not even that of a job that is not there any more.
Outcome read_last_number(sqlite3* db, const std::string& path, uint64_t* number) {
  Statement row(db, "SELECT seq FROM sqlite_sequence WHERE name='jobs'");
  *number = row.row() ? row.number() : 0;
  return row.failed() ? failure(db, path) : Outcome();
}

}  // namespace

Outcome upgrade_record(sqlite3* db, const std::string& path, uint64_t version,
                       std::vector<std::pair<std::string, std::string>>* entries) {
  const std::string sql = std::string(version < 2 ? kSince2 : "") + (version < 3 ? kSince3 : "");
  if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return failure(db, path);
  std::vector<JobRecord> jobs;
  uint64_t last = 0;
  Outcome read = read_jobs(db, path, &jobs);
  if (read.ok()) read = read_last_number(db, path, &last);
  if (!read.ok()) return read;
  *entries = Store::entries_of(jobs, last);
  const char* const drop = "DROP TABLE jobs; DROP TABLE vgpus; DROP TABLE turns;";
  return sqlite3_exec(db, drop, nullptr, nullptr, nullptr) == SQLITE_OK ? Outcome() : failure(db, path);
}

}  // namespace tide::sched
