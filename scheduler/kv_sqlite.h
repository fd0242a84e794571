#pragma once

// The store in one SQLite file, for one scheduler: write-ahead log, synchronous=FULL. What a call has done survives a
// power cut. A lease lives on for a whole term after the file was opened again.

#include <functional>
#include <map>

#include "scheduler/kv.h"

struct sqlite3;

namespace tide::sched {

class SqliteKv final : public Kv {
 public:
  // What a file had that was made before it held keys and values (old_record.h).
  using Upgrade = std::function<Outcome(sqlite3* db, const std::string& path, uint64_t version,
                                        std::vector<std::pair<std::string, std::string>>* entries)>;
  // Creates the file if need be.
  static Outcome open(const std::string& path, const Upgrade& upgrade, std::unique_ptr<Kv>* kv);
  ~SqliteKv() override;
  SqliteKv(const SqliteKv&) = delete;
  SqliteKv& operator=(const SqliteKv&) = delete;

  const std::string& name() const override { return path_; }
  Outcome commit(const Transaction& transaction, Committed* committed) override;
  Outcome range(const Range& range, std::vector<Entry>* entries) override;
  Outcome grant(uint32_t ttl_ms, uint64_t* lease) override;
  Outcome renew(uint64_t lease, bool* alive) override;
  Outcome revoke(uint64_t lease) override;
  std::unique_ptr<Watch> watch(const Range& range) override;
  Outcome compact(uint64_t) override { return {}; }

 private:
  friend class SqliteWatch;
  struct Lease {
    uint64_t ttl_ns = 0, until_ns = 0;
  };
  explicit SqliteKv(std::string path) : path_(std::move(path)) {}
  Outcome prepare(const Upgrade& upgrade);
  Outcome make(uint64_t version, const Upgrade& upgrade);
  Outcome load();
  Outcome run(const char* sql);
  Outcome failure(const char* what) const;
  // Between BEGIN and COMMIT.
  template <typename Work>
  Outcome in_transaction(Work&& work);
  Outcome holds(const Compare& compare, bool* yes);
  Outcome put(const Change& change, uint64_t revision);
  Outcome write_revision(uint64_t revision);
  Outcome expire();
  Outcome drop(uint64_t lease);

  std::string path_;
  sqlite3* db_ = nullptr;
  uint64_t revision_ = 0;
  std::map<uint64_t, Lease> leases_;
};

}  // namespace tide::sched
