// What a channel does for a session that is protected: keeps what it sends, and has another worker do it again.

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "interpose/channel.h"
#include "interpose/thread.h"

namespace tide {
namespace {

constexpr uint64_t kServerEnded = ~uint64_t{0};  // WorkerPage::safe_sequence
constexpr uint64_t kFullNs = 60'000'000'000;     // so long a full log waits for a checkpoint
constexpr uint64_t kAskAgainNs = 1'000'000'000;
constexpr uint32_t kTurnPauseUs = 500;
constexpr uint32_t kFeedWaitUs = 2'000;

const char* text_of(Unprotected reason) {
  switch (reason) {
    case Unprotected::kNo:
      return "of nothing";
    case Unprotected::kHostMemory:
      return "kernels may reach memory of the program (mapped, managed, or page-locked on one machine)";
    case Unprotected::kSharing:
      return "it shares memory or events with another process";
    case Unprotected::kError:
      return "a command failed";
    case Unprotected::kLogFull:
      return "no checkpoint was made for 60 s though the log of commands was full";
    case Unprotected::kRenewed:
      return "the program began again after an error";
    case Unprotected::kLogMemory:
      return "there is no memory for the log of commands";
  }
  return "of a reason that is not known";
}

}  // namespace

// Requires: nothing was sent.
void Channel::protect() {
  protection_ = std::make_unique<Protection>(region_, writer_.last_sequence(), Protection::wanted_log_bytes());
  errors_before_ = page_->errors.load();
  const std::lock_guard lock(lock_);
  protected_.store(true);
}

void Channel::end_protection(Unprotected reason) {
  bool feeds;
  {
    const std::lock_guard lock(lock_);
    if (!protected_.load()) return;
    protected_.store(false);
    own_->unprotected.store(uint64_t(reason));
    feeds = protection_->feeds();
  }
  tell_unprotected();
  if (feeds) fail(CUDA_ERROR_DEVICE_UNAVAILABLE, std::string("its worker ended, and ") + text_of(reason));
}

void Channel::tell_unprotected() {
  const uint64_t reason = own_->unprotected.load();
  if (unprotected_told_.exchange(reason) == reason) return;
  log(LogLevel::kWarning, "vGPU %u is not protected any more, because %s; the job goes on without", origin_.vgpu,
      text_of(Unprotected(reason)));
  LinkUse link(*this);
  link->note(own_->unprotected);
  notify(*link, Side::kClient);
}

// --- sending

// Requires: lock_. The service thread does not wait for room: it lets streams go on, without which there is no
// checkpoint.
bool Channel::may_send(const CommandSpec& spec) {
  const bool is_program = thread_state.call != 0;
  return !protection_->feeds() && (!is_program || protection_->has_room()) &&
         Protection::reason_against(uint16_t(spec.call)) == Unprotected::kNo;
}

CUresult Channel::wait_for_turn(const CommandSpec& spec) {
  const Unprotected reason = Protection::reason_against(uint16_t(spec.call));
  for (const uint64_t begin = now_ns();; sleep_us(kTurnPauseUs)) {  // rare: nothing rings when it is over
    if (lost_.load()) return CUresult(failure_.load());
    bool feeds;
    {
      const std::lock_guard lock(lock_);
      if (!protected_.load() || may_send(spec)) return CUDA_SUCCESS;
      feeds = protection_->feeds();
    }
    if (!feeds && reason != Unprotected::kNo) {
      end_protection(reason);
      return CUDA_SUCCESS;
    }
    if (!feeds && now_ns() - begin > kFullNs) end_protection(Unprotected::kLogFull);
    drain();
    look_after();
  }
}

// Requires: lock_. Without memory the command is sent all the same.
void Channel::keep(const CommandHeader& header, const std::byte* payload) {
  if (protection_->sent(header, payload)) return;
  protected_.store(false);
  own_->unprotected.store(uint64_t(Unprotected::kLogMemory));
}

void Channel::keep_mark(CommandLog::Kind kind, uint32_t slot, uint64_t sequence) {
  const bool event = kind == CommandLog::Kind::kEventMark;
  if (event ? protection_->has_reached_event(slot, sequence) : protection_->has_reached_stream(slot, sequence)) return;
  bool kept = true;
  {
    const std::lock_guard lock(lock_);
    if (protected_.load()) kept = protection_->reached(kind, slot, sequence);
  }
  if (!kept) end_protection(Unprotected::kLogMemory);
}

// False: it is not stored yet.
bool Channel::keep_signal(uint32_t slot, uint64_t value) {
  bool kept = true, now = true;
  {
    const std::lock_guard lock(lock_);
    if (protected_.load()) kept = protection_->signal(slot, value, &now);
    if (now || !kept) own_->signals[slot].store(value, std::memory_order_release);
  }
  if (!kept) end_protection(Unprotected::kLogMemory);
  return now || !kept;
}

// --- checkpoints

// Every few milliseconds, by any thread.
void Channel::look_after_log() {
  if (own_->unprotected.load(std::memory_order_relaxed) != 0) return tell_unprotected();
  if (!is_protected()) return;
  if (page_->safe_sequence.load(std::memory_order_acquire) == kServerEnded) {
    bool ended;
    {
      const std::lock_guard lock(lock_);
      ended = !protection_->feeds() && protected_.exchange(false);
    }
    if (ended)
      log(LogLevel::kWarning, "vGPU %u is not protected any more, as its server says (`tide job`)", origin_.vgpu);
    return;
  }
  if (page_->errors.load(std::memory_order_acquire) != errors_before_ && !repeats_differ())
    return end_protection(Unprotected::kError);
  trim_log();
  ask_for_checkpoint();
}

// Now and then, for as long as the log is half full: one may fail.
void Channel::ask_for_checkpoint() {
  const uint64_t now = now_ns();
  if (now - asked_checkpoint_ns_.load(std::memory_order_relaxed) < kAskAgainNs) return;
  uint64_t wanted = 0;
  {
    const std::lock_guard lock(lock_);
    if (protected_.load() && protection_->wants_checkpoint()) wanted = writer_.last_sequence();
  }
  if (wanted == 0) return;
  asked_checkpoint_ns_.store(now);
  own_->checkpoint_wanted.store(wanted);
  LinkUse link(*this);
  link->note(own_->checkpoint_wanted);
  notify(*link, Side::kClient);
}

void Channel::trim_log() {
  const uint64_t safe = page_->safe_sequence.load(std::memory_order_acquire);
  if (safe <= trimmed_to_.load(std::memory_order_relaxed)) return;
  const std::unique_lock draining(drain_mu_, std::try_to_lock);
  if (!draining.owns_lock()) return;
  for (bool more = true; more;) {
    const std::lock_guard lock(lock_);
    more = protection_->drop_to(safe);
  }
  protection_->answers.drop_to(safe);
  protection_->text.drop_to(page_->safe_answers.load(std::memory_order_acquire));
  trimmed_to_.store(safe);
}

// --- answers; under drain_mu_

void Channel::remember(uint64_t sequence, const Pending& pending) {
  if (pending.digest != nullptr && is_protected())
    protection_->answers.remember(sequence, *pending.digest, pending.compared);
}

// An answer that nobody waits for: given up, or the program had it from the worker before.
void Channel::compare(const Answer& answer) {
  if (!is_protected()) return;
  const AnswerHeader& header = answer.header;
  const auto kind = AnswerKind(header.kind);
  SeenAnswers::Part part{.sequence = header.sequence, .offset = header.offset, .from = answer.payload};
  part.bytes = header.payload_bytes;
  part.data = kind == AnswerKind::kData || kind == AnswerKind::kPackedData;
  part.last = kind == AnswerKind::kResult || (header.flags & 1) != 0;
  part.result = header.result;
  if (kind == AnswerKind::kResult) part.offset = 0;
  if (kind == AnswerKind::kPackedData) {
    part.bytes = uint32_t(header.result);
    part.from = unpack(answer, part.bytes);
    if (part.from == nullptr) return;
  }
  if (protection_->answers.take(part) != SeenAnswers::Verdict::kDiffers) return;
  fail(
      CUDA_ERROR_DEVICE_UNAVAILABLE,
      format("its worker ended, and command %llu, done again from the last checkpoint on, gave another answer than the "
             "one that the program has seen",
             static_cast<unsigned long long>(header.sequence)));
}

// A command that had not failed fails when it is done again; then the vGPU is lost.
bool Channel::repeats_differ() {
  const uint64_t sequence = page_->error_sequence.load(std::memory_order_acquire);
  if (sequence == 0 || sequence > protection_->repeats_to() || !is_protected()) return false;
  fail(CUDA_ERROR_DEVICE_UNAVAILABLE,
       format("its worker ended, and command %llu, done again from the last checkpoint on, failed with error %d",
              static_cast<unsigned long long>(sequence), int(page_->error.load())));
  return true;
}

// --- recovery; under reconnect_mu_

// The region, for the worker that has the session from a checkpoint. False: that worker is of no use to us.
bool Channel::set_back(const DoorOpened& opened, std::string* why) {
  if (!is_protected()) {
    *why = "the vGPU was not protected any more";
    return false;
  }
  if (link_.load() != nullptr) LinkUse(*this)->release();  // nothing comes of the worker before
  drain();
  const std::lock_guard draining(drain_mu_);
  const std::lock_guard lock(lock_);
  const char* refused = lost_.load() ? "what it had answered is damaged" : nullptr;
  if (page_->errors.load() != errors_before_) refused = "a command had failed before";
  const RecoveredAt at{opened.epoch, opened.sequence, opened.answers};
  if (refused == nullptr) refused = protection_->set_back(at, &writer_);
  if (refused != nullptr) {
    *why = refused;
    return false;
  }
  await_again();
  trimmed_to_.store(opened.sequence);
  const uint64_t again = protection_->repeats_to() - opened.sequence;
  log(LogLevel::kInfo,
      "vGPU %u: another worker has it from the checkpoint at command %llu; %llu commands are done again", origin_.vgpu,
      static_cast<unsigned long long>(opened.sequence), static_cast<unsigned long long>(again));
  return true;
}

// What had come of an answer, and not all of it, comes from the beginning.
void Channel::await_again() {
  const std::lock_guard lock(pending_mu_);
  for (auto& [sequence, pending] : pending_) {
    if (pending.digest != nullptr) *pending.digest = AnswerDigest();
    pending.left = pending.landing.width * pending.landing.height;
    if (pending.reply != nullptr && !pending.reply->done.load()) pending.reply->payload.clear();
  }
}

// Until all is fed. False: the vGPU is lost. Meanwhile nobody else sends; the worker may break away again, or move.
bool Channel::feed_log() {
  if (protection_ == nullptr) return true;
  while (true) {
    {
      const std::lock_guard lock(lock_);
      if (!protection_->feeds()) return !lost_.load();
    }
    if (!feed_some()) return false;
    const auto state = ChannelState(page_->state.load(std::memory_order_acquire));
    if (state == ChannelState::kFailed) {
      fail(CUDA_ERROR_DEVICE_UNAVAILABLE, "its worker gave up");
      return false;
    }
    const bool moved = (state == ChannelState::kMoved && page_->next_epoch.load() > epoch_.load()) ||
                       (state == ChannelState::kFenced && has_moved_on());
    if (!moved && LinkUse(*this)->alive()) continue;
    std::string cause;
    if (moved) LinkUse(*this)->release();
    if ((moved || !come_back(&cause)) && !search(cause)) return false;
  }
}

// Writes what can be written, and waits a little for the worker.
bool Channel::feed_some() {
  drain();
  if (page_->errors.load(std::memory_order_acquire) != errors_before_) repeats_differ();
  if (lost_.load()) return false;
  LinkUse link(*this);
  Protection::Fed fed;
  {
    const std::lock_guard lock(lock_);
    fed = protection_->feed(&writer_, [&](const Word& signal) { link->note(signal); });
  }
  notify(*link, Side::kClient);
  if (fed == Protection::Fed::kAll || fed == Protection::Fed::kSome) return true;
  const uint64_t tail = page_->command_tail.load(std::memory_order_acquire);
  const auto ready = [&] {
    if (page_->answer_head.load(std::memory_order_acquire) != own_->answer_tail.load(std::memory_order_relaxed))
      return true;
    return fed == Protection::Fed::kAwaitsMark ? protection_->mark_is_there()
                                               : page_->command_tail.load(std::memory_order_acquire) != tail;
  };
  wait_until(*link, Side::kClient, ready, kFeedWaitUs);
  return true;
}

}  // namespace tide
