#pragma once

// Keeps the journal of decisions (decision_files.h) beside the scheduler: what was decided is handed over, and packed
// and written by a thread of its own. Nothing here stops a decision: what cannot be written is left out, and said. One
// thread, with a kj event loop, owns it.

#include <kj/async.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/threads.h"
#include "scheduler/decision_files.h"
#include "scheduler/replay.h"

namespace tide::sched {

inline constexpr size_t kPendingJobsMax = 100'000;  // of all decisions together that are not written yet
inline constexpr size_t kHistoryMax = 1000;         // decisions about a job that are told

// For people.
struct JournalStatus {
  std::string directory;  // empty: nothing is recorded
  uint64_t first = 0, last = 0, bytes = 0, bytes_max = 0;
  uint64_t left_out = 0;  // decisions, since the scheduler started
  std::string problem;    // why the last one was not written; empty: it was
};

class Recorder final {
 public:
  Recorder() = default;
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // From now on in this directory. Empty, or 0 bytes: nothing is recorded.
  void keep(const std::string& directory, uint64_t bytes_max);
  void resize(uint64_t bytes_max) { keep(std::string(directory_), bytes_max); }
  bool on() const { return on_; }
  // After each round. Recorded is one in which something was decided: a job begins or ends to run, is to be elsewhere,
  // or waits for the first time; and not what was decided in the round before and is not done yet.
  void note(State state, const Assignment& answer);
  // How the pool is now, as a snapshot's file.
  static std::string file_of(State state);

  // A snapshot's file; the decisions that were noted before are in it.
  kj::Promise<std::string> fetch(Which which);
  kj::Promise<std::vector<JobDecision>> about(std::string job);
  JournalStatus status();

 private:
  using Task = std::function<void(std::optional<DecisionFiles>&)>;
  void work();
  void give(Task task);
  kj::Promise<void> done(Task task);
  void write(Snapshot* snapshot, std::optional<DecisionFiles>& files);
  void tell(const Outcome& outcome, const DecisionFiles* files);
  bool note_waiting(const State& state, const Assignment& answer, std::vector<Decided>* decided);

  std::string directory_;
  bool on_ = false;
  std::vector<Decided> last_changes_;                     // without what waits
  std::unordered_map<std::string, std::string> waiting_;  // jobs, and why, as was recorded last
  Thread thread_;

  std::mutex mu_;
  std::condition_variable news_;
  std::deque<Task> tasks_;  // under mu_, as all below
  size_t pending_jobs_ = 0;
  bool ending_ = false;
  JournalStatus status_;
};

}  // namespace tide::sched
