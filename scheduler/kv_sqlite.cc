#include "scheduler/kv_sqlite.h"

#include <sqlite3.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/statement.h"

namespace tide::sched {
namespace {

constexpr uint64_t kSchemaVersion = 4;

constexpr const char* kSchema = R"(
  CREATE TABLE entries(
    key BLOB PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
    lease INTEGER NOT NULL);
  CREATE INDEX entries_by_lease ON entries(lease) WHERE lease <> 0;
  CREATE TABLE leases(id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_ms INTEGER NOT NULL);
  CREATE TABLE revision(number INTEGER NOT NULL);
  INSERT INTO revision VALUES(1);
)";

}  // namespace

class SqliteWatch final : public Watch {
 public:
  explicit SqliteWatch(SqliteKv& kv) : kv_(kv) {}
  bool changed() override {
    (void)kv_.expire();  // it is a hint
    const bool is = seen_ != kv_.revision_;
    seen_ = kv_.revision_;
    return is;
  }

 private:
  SqliteKv& kv_;
  uint64_t seen_ = 0;
};

Outcome SqliteKv::open(const std::string& path, const Upgrade& upgrade, std::unique_ptr<Kv>* kv) {
  std::unique_ptr<SqliteKv> opened(new SqliteKv(path));
  if (sqlite3_open(path.c_str(), &opened->db_) != SQLITE_OK) return opened->failure("open");
  sqlite3_busy_timeout(opened->db_, 2000);
  Outcome ready = opened->prepare(upgrade);
  if (ready.ok()) ready = opened->load();
  if (!ready.ok()) return ready;
  *kv = std::move(opened);
  return {};
}

SqliteKv::~SqliteKv() { sqlite3_close(db_); }

Outcome SqliteKv::failure(const char* what) const {
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

Outcome SqliteKv::run(const char* sql) {
  return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK ? Outcome() : failure("write");
}

template <typename Work>
Outcome SqliteKv::in_transaction(Work&& work) {
  Outcome outcome = run("BEGIN IMMEDIATE");
  if (outcome.ok()) outcome = work();
  if (outcome.ok()) outcome = run("COMMIT");
  if (!outcome.ok()) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  return outcome;
}

Outcome SqliteKv::prepare(const Upgrade& upgrade) {
  // Exclusive: a second scheduler on the same directory is refused at once.
  for (const char* sql : {"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"}) {
    if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return failure("open");
  }
  uint64_t have = 0;
  {
    Statement version(db_, "PRAGMA user_version");
    have = version.row() ? version.number() : 0;
    if (version.failed() || !version.done()) return failure("read");
  }
  if (have > kSchemaVersion) {
    return Outcome::fail(format("%s was written by a newer Tidepool (version %lu of the record, this one knows %lu)",
                                path_.c_str(), (unsigned long)have, (unsigned long)kSchemaVersion));
  }
  return have == kSchemaVersion ? Outcome() : in_transaction([&] { return make(have, upgrade); });
}

Outcome SqliteKv::make(uint64_t version, const Upgrade& upgrade) {
  std::vector<std::pair<std::string, std::string>> entries;
  Outcome outcome = version == 0 ? Outcome() : upgrade(db_, path_, version, &entries);
  if (outcome.ok()) outcome = run(kSchema);
  for (const auto& [key, value] : entries) {
    if (outcome.ok()) outcome = put({.key = key, .value = value}, 1);
  }
  return outcome.ok() ? run(format("PRAGMA user_version=%lu", (unsigned long)kSchemaVersion).c_str()) : outcome;
}

Outcome SqliteKv::load() {
  Statement number(db_, "SELECT number FROM revision");
  if (!number.row()) return failure("read");
  revision_ = number.number();
  Statement leases(db_, "SELECT id, ttl_ms FROM leases");
  while (leases.row()) {
    const uint64_t id = leases.number(), ttl_ns = leases.number() * 1'000'000;
    leases_[id] = {.ttl_ns = ttl_ns, .until_ns = now_ns() + ttl_ns};
  }
  return leases.failed() ? failure("read") : Outcome();
}

Outcome SqliteKv::holds(const Compare& compare, bool* yes) {
  Statement row(db_, compare.what == Compare::What::kCreated ? "SELECT created FROM entries WHERE key=?"
                                                             : "SELECT modified FROM entries WHERE key=?");
  row.bind_bytes(compare.key);
  const uint64_t revision = row.row() ? row.number() : 0;
  *yes = revision == compare.revision;
  return row.failed() ? failure("read") : Outcome();
}

Outcome SqliteKv::put(const Change& change, uint64_t revision) {
  if (!change.value) {
    Statement erase(db_, "DELETE FROM entries WHERE key=?");
    erase.bind_bytes(change.key);
    return erase.done() ? Outcome() : failure("write");
  }
  Statement insert(db_,
                   "INSERT INTO entries VALUES(?1,?2,?3,?3,?4) ON CONFLICT(key) DO UPDATE SET value=?2, modified=?3, "
                   "lease=?4");
  insert.bind_bytes(change.key).bind_bytes(*change.value).bind(revision).bind(change.lease);
  return insert.done() ? Outcome() : failure("write");
}

Outcome SqliteKv::write_revision(uint64_t revision) {
  Statement update(db_, "UPDATE revision SET number=?");
  update.bind(revision);
  return update.done() ? Outcome() : failure("write");
}

Outcome SqliteKv::commit(const Transaction& transaction, Committed* committed) {
  if (Outcome o = expire(); !o.ok()) return o;
  for (const Change& change : transaction.changes) {
    if (change.lease != 0 && leases_.count(change.lease) == 0) return Outcome::fail("there is no such lease any more");
  }
  for (const Compare& compare : transaction.compares) {
    bool yes = false;
    if (Outcome o = holds(compare, &yes); !o.ok()) return o;
    if (yes) continue;
    *committed = {};
    return {};
  }
  const uint64_t revision = revision_ + (transaction.changes.empty() ? 0 : 1);
  const Outcome outcome = transaction.changes.empty() ? Outcome() : in_transaction([&] {
    Outcome written = write_revision(revision);
    for (const Change& change : transaction.changes) {
      if (written.ok()) written = put(change, revision);
    }
    return written;
  });
  if (!outcome.ok()) return outcome;
  revision_ = revision;
  *committed = {.done = true, .revision = revision};
  return {};
}

Outcome SqliteKv::range(const Range& range, std::vector<Entry>* entries) {
  if (Outcome o = expire(); !o.ok()) return o;
  Statement rows(db_, (std::string("SELECT key, value, created, modified, lease FROM entries WHERE key>=? AND key<? "
                                   "ORDER BY key") +
                       (range.last_first ? " DESC" : "") + " LIMIT ?")
                          .c_str());
  rows.bind_bytes(range.from).bind_bytes(range.to).bind(range.limit == 0 ? INT64_MAX : range.limit);
  std::vector<Entry> found;
  while (rows.row()) {
    Entry& entry = found.emplace_back();
    entry.key = rows.text();
    entry.value = rows.text();
    entry.created = rows.number();
    entry.modified = rows.number();
    entry.lease = rows.number();
  }
  if (rows.failed()) return failure("read");
  *entries = std::move(found);
  return {};
}

Outcome SqliteKv::drop(uint64_t lease) {
  uint64_t revision = revision_;
  const Outcome dropped = in_transaction([&] {
    Statement keys(db_, "DELETE FROM entries WHERE lease=?");
    keys.bind(lease);
    if (!keys.done()) return failure("write");
    if (sqlite3_changes(db_) != 0) ++revision;
    Statement row(db_, "DELETE FROM leases WHERE id=?");
    row.bind(lease);
    return row.done() ? write_revision(revision) : failure("write");
  });
  if (!dropped.ok()) return dropped;
  leases_.erase(lease);
  revision_ = revision;
  return {};
}

Outcome SqliteKv::expire() {
  if (leases_.empty()) return {};
  const uint64_t now = now_ns();
  std::vector<uint64_t> over;
  for (const auto& [id, lease] : leases_) {
    if (lease.until_ns <= now) over.push_back(id);
  }
  for (const uint64_t id : over) {
    if (Outcome o = drop(id); !o.ok()) return o;
  }
  return {};
}

Outcome SqliteKv::grant(uint32_t ttl_ms, uint64_t* lease) {
  uint64_t id = 0;
  const Outcome written = in_transaction([&] {
    Statement insert(db_, "INSERT INTO leases(ttl_ms) VALUES(?)");
    insert.bind(ttl_ms);
    if (!insert.done()) return failure("write");
    id = uint64_t(sqlite3_last_insert_rowid(db_));
    return Outcome();
  });
  if (!written.ok()) return written;
  const uint64_t ttl_ns = uint64_t(ttl_ms) * 1'000'000;
  leases_[id] = {.ttl_ns = ttl_ns, .until_ns = now_ns() + ttl_ns};
  *lease = id;
  return {};
}

Outcome SqliteKv::renew(uint64_t lease, bool* alive) {
  if (Outcome o = expire(); !o.ok()) return o;
  const auto found = leases_.find(lease);
  *alive = found != leases_.end();
  if (*alive) found->second.until_ns = now_ns() + found->second.ttl_ns;
  return {};
}

Outcome SqliteKv::revoke(uint64_t lease) { return leases_.count(lease) == 0 ? Outcome() : drop(lease); }

std::unique_ptr<Watch> SqliteKv::watch(const Range&) { return std::make_unique<SqliteWatch>(*this); }

}  // namespace tide::sched
