#include "interpose/protection.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "calls.h"

namespace tide {
namespace {

constexpr uint64_t kMiB = 1u << 20;
constexpr uint64_t kLogBytes = 256 * kMiB, kLogBytesLeast = 16 * kMiB, kLogBytesMost = 65'536 * kMiB;

}  // namespace

Protection::Protection(Region region, uint64_t last_sequence, uint64_t log_bytes)
    : region_(region),
      log_bytes_(log_bytes),
      log_(last_sequence),
      streams_(new Word[kStreamSlots]()),
      events_(new Word[kEventSlots]()) {}

uint64_t Protection::wanted_log_bytes() {
  const char* const text = getenv("TIDE_PROTECT_LOG_MIB");
  const uint64_t bytes = text == nullptr ? 0 : strtoull(text, nullptr, 10) * kMiB;
  return bytes == 0 ? kLogBytes : std::clamp(bytes, kLogBytesLeast, kLogBytesMost);
}

Unprotected Protection::reason_against(uint16_t call) {
  switch (Call(call)) {
    case Call::tideMapHost:
      return Unprotected::kHostMemory;
    case Call::tideShareMemory:
    case Call::tideOpenPhysical:
    case Call::tideShareEvent:
    case Call::tideOpenEvent:
    case Call::tideWatchEvent:
    case Call::tidePeerAddress:
    case Call::tideFetch:
      return Unprotected::kSharing;
    case Call::tideEnd:
      return Unprotected::kRenewed;
    default:
      return Unprotected::kNo;
  }
}

// Times are not, nor is what other processes left.
bool Protection::is_compared(uint16_t call) {
  return Call(call) != Call::tideElapsed && Call(call) != Call::tideAskMemory;
}

bool Protection::signal(uint32_t slot, uint64_t value, bool* now) {
  *now = !feeds_;
  return log_.add(CommandLog::Kind::kSignal, slot, value);
}

bool Protection::reached(CommandLog::Kind kind, uint32_t slot, uint64_t sequence) {
  Word& seen = (kind == CommandLog::Kind::kStreamMark ? streams_ : events_)[slot];
  if (is_over(seen, sequence)) return true;
  seen.store(sequence, std::memory_order_release);
  // What a checkpoint contains needs no mark.
  return sequence <= log_.begin() || log_.add(kind, slot, sequence);
}

// --- recovery

const char* Protection::set_back(const RecoveredAt& at, CommandWriter* writer) {
  if (at.sequence < log_.begin()) return "what the client keeps does not reach back to the last checkpoint";
  if (at.sequence > log_.end()) return "the last checkpoint contains commands that were never sent";
  if (region_.client().answer_tail.load() < at.answers) return "the last checkpoint contains answers that never came";
  while (drop_to(at.sequence)) {
  }
  log_.rewind();
  set_back_pages(at);
  *writer = CommandWriter(region_, at.sequence);
  answers.drop_to(at.sequence);
  answers.begin_again();
  text.begin_again(at.answers);
  recovered_to_.store(at.sequence, std::memory_order_release);
  repeats_to_.store(log_.end(), std::memory_order_relaxed);
  mark_.store(nullptr);
  feeds_ = true;
  return nullptr;
}

// What is in the command ring is in the log, too, and all answers were taken: both rings are empty. At the checkpoint
// all work was over.
void Protection::set_back_pages(const RecoveredAt& at) {
  WorkerPage& page = region_.worker();
  ClientPage& own = region_.client();
  page.state.store(uint64_t(ChannelState::kPaused));
  page.command_tail.store(own.command_head.load(std::memory_order_relaxed));
  page.acknowledged.store(at.sequence);
  page.answer_head.store(own.answer_tail.load());
  const auto lower = [&](Word& word) {
    if (word.load(std::memory_order_relaxed) > at.sequence) word.store(at.sequence);
  };
  std::for_each(std::begin(page.stream_progress), std::end(page.stream_progress), lower);
  std::for_each(std::begin(page.event_done), std::end(page.event_done), lower);
  page.safe_answers.store(at.answers);
  page.safe_sequence.store(at.sequence);
  for (uint32_t slot = 0; slot < kSignalSlots; ++slot) own.signals[slot].store(log_.signal(slot));
  own.recovered.store(at.epoch);
}

const Word& Protection::word_of(const CommandLog::Entry& mark) const {
  const WorkerPage& page = region_.worker();
  return mark.kind == CommandLog::Kind::kStreamMark ? page.stream_progress[mark.slot] : page.event_done[mark.slot];
}

bool Protection::mark_is_there() const {
  const Word* const word = mark_.load(std::memory_order_acquire);
  return word == nullptr || word->load(std::memory_order_acquire) >= mark_value_.load(std::memory_order_relaxed);
}

// False: not now.
bool Protection::feed_one(const CommandLog::Entry& entry, CommandWriter* writer,
                          const std::function<void(const Word&)>& note) {
  if (entry.kind == CommandLog::Kind::kSignal) {
    Word& signal = region_.client().signals[entry.slot];
    signal.store(entry.value, std::memory_order_release);
    note(signal);
    return true;
  }
  if (entry.kind != CommandLog::Kind::kCommand) {
    if (entry.value <= recovered_to_.load(std::memory_order_relaxed)) return true;
    mark_value_.store(entry.value, std::memory_order_relaxed);
    mark_.store(&word_of(entry), std::memory_order_release);
    if (!mark_is_there()) return false;
    mark_.store(nullptr);
    return true;
  }
  CommandHeader* const place = writer->reserve(entry.command->payload_bytes);
  if (place == nullptr) return false;
  const uint32_t bytes = place->bytes;
  *place = *entry.command;
  place->bytes = bytes;
  memcpy(payload_of(place), entry.command + 1, place->payload_bytes);
  writer->publish(place);
  return true;
}

Protection::Fed Protection::feed(CommandWriter* writer, const std::function<void(const Word&)>& note) {
  CommandLog::Entry entry;
  for (int i = 0; i < kFedAtOnce; ++i) {
    if (!log_.look(&entry)) {
      feeds_ = false;
      return Fed::kAll;
    }
    if (!feed_one(entry, writer, note)) {
      return entry.kind == CommandLog::Kind::kCommand ? Fed::kRingIsFull : Fed::kAwaitsMark;
    }
    log_.pass();
  }
  return Fed::kSome;
}

}  // namespace tide
