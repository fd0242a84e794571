#pragma once

// The journal of decisions on disk: each with its number, when, what the policy was asked with and what it answered, in
// a ring of files that together never take more than they may. Each file begins with a whole state; behind it there are
// differences, and now and then a whole one again. A file that ends in the middle of a decision (a crash, a full disk)
// is good up to there. Owned by one thread at a time.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/snapshot.h"

namespace tide::sched {

inline constexpr uint64_t kJournalBytes = 64u << 20;      // of all files together, where pool.toml says nothing
inline constexpr uint64_t kJournalBytesLeast = 1u << 20;  // less is none
inline constexpr uint32_t kDifferencesMax = 64;           // in a row

// Which decision: of this number, else the last one that was made at this time (ms since 1970), else the last.
struct Which {
  uint64_t number = 0, at_ms = 0;
};

// What was decided about a job, for people.
struct JobDecision {
  uint64_t number = 0, at_ms = 0;
  Decided decided;
};

class DecisionFiles {
 public:
  // Creates the directory. What is there already is kept, and numbers go on behind it.
  static Outcome open(const std::string& directory, uint64_t bytes_max, std::optional<DecisionFiles>* files);

  // Gives it the next number. Where that fails, the journal is as it was, and the decision has no number.
  Outcome append(Snapshot* snapshot);
  Outcome find(const Which& which, Snapshot* snapshot) const;
  // The last `most` about this job, in their order.
  std::vector<JobDecision> about(const std::string& job, size_t most) const;
  void keep(uint64_t bytes_max);

  uint64_t first() const { return files_.empty() ? 0 : files_.begin()->first; }  // 0: there is none
  uint64_t last() const { return next_ - 1; }
  uint64_t bytes() const;
  uint64_t bytes_max() const { return bytes_max_; }

 private:
  struct File {
    std::string path;
    uint64_t bytes = 0;
    uint64_t first_ms = 0;
  };
  DecisionFiles(std::string directory, uint64_t bytes_max) : directory_(std::move(directory)), bytes_max_(bytes_max) {}
  Outcome look();
  Outcome write_to(const std::string& path, const std::string& frame, uint64_t* size) const;
  void make_room(uint64_t bytes);

  std::string directory_;
  uint64_t bytes_max_;
  uint64_t next_ = 1;
  std::map<uint64_t, File> files_;  // by the number of their first decision
  bool fresh_ = true;               // the next decision begins a file
  State before_;                    // of the decision before
  uint32_t differences_ = 0;
  uint64_t whole_bytes_ = 0, difference_bytes_ = 0;  // of the last whole state, and of all differences behind it
};

}  // namespace tide::sched
