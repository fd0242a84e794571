#pragma once

// Where schedulers remember and what they agree by: keys with values, each with the revisions at which it was made and
// changed last. Revisions of one store only grow, by at most one for a transaction. Behind it: one SQLite file
// (kv_sqlite.h), etcd (kv_etcd.h), memory (kv_memory.h); tests/scheduler/kv_conformance_test.cc holds them to this
// text. Every call returns within two seconds or so. One that failed may have been carried out, now or later, unless
// it only asked; who must know compares revisions when trying again. Owned by one thread.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::sched {

inline constexpr uint32_t kChangesMax = 100;             // of one transaction, and as many comparisons
inline constexpr uint64_t kChangeBytesMax = 1000 << 10;  // of its keys and values

struct Entry {
  std::string key, value;
  uint64_t created = 0, modified = 0;  // revisions
  uint64_t lease = 0;                  // 0: none
};

struct Compare {
  enum class What : uint8_t { kCreated, kModified };
  std::string key;
  What what = What::kModified;
  uint64_t revision = 0;  // 0: there is no such key
};

struct Change {
  std::string key;
  std::optional<std::string> value;  // none: the key is erased, if it is there
  uint64_t lease = 0;                // with it the key goes; 0: it stays
};

// All changes or none; each key at most once among them.
struct Transaction {
  std::vector<Compare> compares;
  std::vector<Change> changes;
};

struct Committed {
  bool done = false;      // false: a comparison did not hold, and nothing was changed
  uint64_t revision = 0;  // done: that of its changes
};

struct Range {
  std::string from, to;  // from <= key < to, in the order of bytes
  uint32_t limit = 0;    // 0: all
  bool last_first = false;
};
Range range_of(const std::string& prefix);
inline Range one_key(const std::string& key) { return {key, key + '\0'}; }

// Of a range: that something may have changed. A hint: it may come late, for nothing, or (where the store was away) not
// at all, so who waits for something looks from time to time all the same.
class Watch {
 public:
  virtual ~Watch() = default;
  virtual bool changed() = 0;  // since it was asked last; the first time true
};

class Kv {
 public:
  virtual ~Kv() = default;
  virtual const std::string& name() const = 0;  // for messages: a path, or etcd://...

  // Linearizable: takes effect at one moment between call and return, for all who use the store.
  virtual Outcome commit(const Transaction& transaction, Committed* committed) = 0;
  virtual Outcome range(const Range& range, std::vector<Entry>* entries) = 0;

  // A lease ends `ttl_ms` (rounded up to what the store can) after it was granted or renewed last, not earlier, and
  // its keys with it.
  virtual Outcome grant(uint32_t ttl_ms, uint64_t* lease) = 0;
  virtual Outcome renew(uint64_t lease, bool* alive) = 0;
  virtual Outcome revoke(uint64_t lease) = 0;  // its end; none that has ended already is an error

  virtual std::unique_ptr<Watch> watch(const Range& range) = 0;  // does not outlive the store
  // What was before this revision is not needed any more.
  virtual Outcome compact(uint64_t revision) = 0;
  // How often to try what failed before somebody hears of it: more than once where another member may answer.
  virtual uint32_t tries() const { return 1; }
};

}  // namespace tide::sched
