#pragma once

// What the client of a protected session does besides speaking to its worker (docs/decisions/0017): it keeps what it
// sends, and of what it was answered enough to know it again. When another worker has the session from a checkpoint, it
// sets the region back to there and feeds the log to that worker. Nothing that the program has seen is undone by that.
//
// Belongs to a channel. Which of its locks guards what is said with each part.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "interpose/command_log.h"
#include "interpose/seen_answers.h"
#include "transport/ring.h"

namespace tide {

// What an agent says of a worker that has the session from a checkpoint (DoorOpened).
struct RecoveredAt {
  uint64_t epoch = 0;
  uint64_t sequence = 0;  // of the last command that the checkpoint contains
  uint64_t answers = 0;   // where the answer ring stood
};

class Protection {
 public:
  // From the command behind `last_sequence` on. The log has at most about `log_bytes`.
  Protection(Region region, uint64_t last_sequence, uint64_t log_bytes);

  // TIDE_PROTECT_LOG_MIB, or what is usual.
  static uint64_t wanted_log_bytes();
  // kNo, if such a command can be done again by another worker.
  static Unprotected reason_against(uint16_t call);
  // Whether the answers of such commands are the same each time.
  static bool is_compared(uint16_t call);

  // --- sending; the channel's lock_
  // Room for another command; else there is to be a checkpoint first. And whether nobody may send because the log is
  // being fed.
  bool has_room() const { return log_.bytes() <= log_bytes_; }
  bool feeds() const { return feeds_; }
  // Before it is published. False: no memory.
  [[nodiscard]] bool sent(const CommandHeader& header, const std::byte* payload) { return log_.add(header, payload); }
  // The client stores a signal. While the log is fed it is stored in its turn: true if it may be now.
  [[nodiscard]] bool signal(uint32_t slot, uint64_t value, bool* now);
  // It is half full.
  bool wants_checkpoint() const { return log_.bytes() >= log_bytes_ / 2; }
  // What checkpoints contain goes, at most some thousand entries at once; true when there is more.
  bool drop_to(uint64_t sequence) { return log_.drop_to(sequence, kDroppedAtOnce); }
  const CommandLog& log() const { return log_; }

  // --- waiting; any thread
  bool has_reached_stream(uint32_t slot, uint64_t sequence) const { return is_over(streams_[slot], sequence); }
  bool has_reached_event(uint32_t slot, uint64_t sequence) const { return is_over(events_[slot], sequence); }
  // The program sees that. With lock_: false if there is no memory. Not needed where it has been seen.
  [[nodiscard]] bool reached(CommandLog::Kind kind, uint32_t slot, uint64_t sequence);

  // --- answers; the channel's drain_mu_
  SeenAnswers answers;
  SeenText text;

  // --- recovery; both locks. Nobody sends, waits for room or takes answers meanwhile.
  // Sets the region back for a worker that has the session from a checkpoint. Null, or why that cannot be. Requires:
  // all answers of the worker before have been taken.
  const char* set_back(const RecoveredAt& at, CommandWriter* writer);
  // The last command that goes to that worker a second time.
  uint64_t repeats_to() const { return repeats_to_.load(std::memory_order_relaxed); }
  // Writes what comes next of the log; with lock_. `note`: of a signal that was stored.
  enum class Fed { kSome, kRingIsFull, kAwaitsMark, kAll };
  Fed feed(CommandWriter* writer, const std::function<void(const Word&)>& note);
  // Whether the mark has come that feed() found missing. Any thread.
  bool mark_is_there() const;

 private:
  static constexpr size_t kDroppedAtOnce = 4096;
  static constexpr int kFedAtOnce = 256;
  struct Mark {
    const Word* word = nullptr;
    uint64_t value = 0;
  };

  // At a checkpoint all work is over.
  bool is_over(const Word& seen, uint64_t sequence) const {
    return seen.load(std::memory_order_acquire) >= sequence ||
           recovered_to_.load(std::memory_order_acquire) >= sequence;
  }
  const Word& word_of(const CommandLog::Entry& mark) const;
  bool feed_one(const CommandLog::Entry& entry, CommandWriter* writer, const std::function<void(const Word&)>& note);
  void set_back_pages(const RecoveredAt& at);

  const Region region_;
  const uint64_t log_bytes_;
  CommandLog log_;
  std::unique_ptr<Word[]> streams_;  // how far the program has seen them come
  std::unique_ptr<Word[]> events_;   // likewise
  bool feeds_ = false;
  std::atomic<uint64_t> recovered_to_{0}, repeats_to_{0};
  std::atomic<const Word*> mark_{nullptr};  // that is missing
  std::atomic<uint64_t> mark_value_{0};
};

}  // namespace tide
