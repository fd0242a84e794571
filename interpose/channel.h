#pragma once

// The client's end of one vGPU: one command sequence, what is awaited from the worker, and the life of the connection
// (first open, moves, loss). Commands go out under a short spin lock; every wait happens outside of it.
//
// Threads: any may call anything. `drain_mu_` before `pending_mu_`; `reconnect_mu_` before none of the others.

#include <cuda.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/outcome.h"
#include "base/pack.h"
#include "calls.h"
#include "interpose/protection.h"
#include "interpose/spin_lock.h"
#include "interpose/thread.h"
#include "transport/door.h"
#include "transport/link.h"
#include "transport/ring.h"
#include "transport/wait.h"

namespace tide {

class Pool;
class Redial;

// An answer that somebody waits for. Must outlive the wait: remove it with forget() before it goes.
struct Reply {
  std::atomic<bool> done{false};
  CUresult result = CUDA_SUCCESS;
  std::vector<std::byte> payload;
};

// Where the bytes of a tideCopyOut belong: rows of `width` bytes, `pitch` apart.
struct Landing {
  std::byte* destination = nullptr;
  uint64_t pitch = 0, width = 0, height = 0;
  bool stays = false;  // page-locked: the far side may write there, if the link lets it

  // Of its bytes, as if the rows were packed.
  bool holds(uint64_t offset, uint64_t bytes) const {
    const uint64_t total = width * height;
    return offset <= total && bytes <= total - offset;
  }
  void put(uint64_t offset, const std::byte* from, uint64_t bytes) const;
};

// A page of host memory as the worker told it (docs/wire.md), found after command `executed`.
struct ToldPage {
  static constexpr uint64_t kBytes = 4096;
  uint64_t executed = 0;
  std::array<std::byte, kBytes> bytes;
};
using ToldPages = std::map<uint64_t, ToldPage>;  // by address on the worker's side; the last of each

struct CommandSpec {
  Call call{};
  uint32_t context = 0;
  uint32_t stream = kNoStream;  // work on this slot
  uint32_t payload_bytes = 0;
  Reply* reply = nullptr;            // awaited; sets kCommandAnswer unless `library`
  bool library = false;              // the reply comes as AnswerKind::kLibrary
  const Landing* landing = nullptr;  // of a tideCopyOut
  // The payload's last bytes, which fill() leaves alone: they lie here, unchanged until the command has been executed.
  const std::byte* bulk = nullptr;
  uint32_t bulk_bytes = 0;
};

struct ChannelOrigin {
  Pool* pool = nullptr;
  uint32_t vgpu = 0;
  uint64_t epoch = 0;
  uint64_t memory_bytes = 0;
  std::string endpoint;
  int host_memory_fd = -1;      // what workers of this machine map (host_zone.h)
  void (*stirred)() = nullptr;  // called after a worker that slept was woken
};

class Channel : private Landings {
 public:
  // Makes the region and connects to the worker.
  static Outcome open(const ChannelOrigin& origin, std::unique_ptr<Channel>* channel);
  // Whether a worker at this endpoint will map memory of this process.
  static bool shares_memory_with(const std::string& endpoint);
  // Over an existing region and link: for tests with a worker of their own.
  static std::unique_ptr<Channel> adopt(Region region, std::unique_ptr<Link> link);
  ~Channel() override;

  // Writes one command; fill(payload) writes its payload_bytes, but for the bulk. Waits (outside of the lock) while the
  // ring is full.
  template <class Fill>
  CUresult send(const CommandSpec& spec, Fill&& fill, uint64_t* sequence = nullptr);

  // The first asynchronous error that nobody has been told yet: once, or for ever when it is sticky.
  CUresult take_error() {
    const int failure = failure_.load(std::memory_order_relaxed);
    if (failure != 0) return CUresult(failure);
    if (page_->errors.load(std::memory_order_acquire) == errors_seen_.load(std::memory_order_relaxed))
      return CUDA_SUCCESS;
    return take_new_error();
  }
  // The error that stays, if there is one.
  CUresult sticky() const { return CUresult(failure_.load()); }
  // Not 0: the program shall begin nothing new. Changes each time that this is wanted again.
  uint64_t held() const {
    return lost_.load(std::memory_order_relaxed) ? 0 : page_->held.load(std::memory_order_relaxed);
  }
  // Not 0: other processes have memory of this vGPU's quota, so how much this one has is told, and more is asked for.
  // Grows where it is to be told anew.
  uint64_t memory_shared() const {
    return std::max(page_->memory_shared.load(std::memory_order_acquire), opened_shared_.load());
  }
  // For a command of a few bytes, without waiting.
  bool has_room() const {
    return own_->command_head.load() - page_->command_tail.load() < kCommandRingBytes - kRecordBytesMax;
  }
  // Whether what is sent is kept, to be done again by another worker. Ends where something is sent that cannot be.
  bool is_protected() const { return protected_.load(std::memory_order_relaxed); }
  bool failed() const { return failure_.load(std::memory_order_relaxed) != 0 && lost_.load(std::memory_order_relaxed); }

  // Whether the work on `slot` up to `sequence` is done; when it is, its data have landed.
  bool done(uint32_t slot, uint64_t sequence);
  bool idle(uint32_t slot) { return done(slot, last_work(slot)); }
  uint64_t last_work(uint32_t slot) const { return last_work_[slot].load(std::memory_order_acquire); }
  bool event_done(uint32_t slot, uint64_t sequence);

  // Waits, and returns the error that came out, if any. Never hangs: a lost vGPU ends every wait.
  CUresult wait_stream(uint32_t slot, uint64_t sequence);
  CUresult wait_event(uint32_t slot, uint64_t sequence);
  CUresult wait_reply(Reply& reply);
  // All work on streams 0..count-1.
  CUresult wait_all(uint32_t count);
  // Until the worker has taken all commands up to this cursor of the ring (sent_to()), or never will: what was lent of
  // them is not read any more.
  CUresult wait_taken(uint64_t cursor);
  uint64_t sent_to() const { return own_->command_head.load(std::memory_order_relaxed); }

  // Takes in what the worker has sent. Cheap when there is nothing.
  void drain();
  void forget(uint64_t sequence);
  // What the worker has told since the last time, for one thread at a time. Then: taken_to() is the cursor of the
  // answer ring up to which everything was taken, and what was found before command executed_to() had come.
  ToldPages take_told();
  uint64_t taken_to() const { return taken_to_; }
  uint64_t executed_to() const { return executed_to_; }
  // Whether the worker maps the program's own pages of host memory. It stays so when the vGPU moves.
  bool shares_host_memory() const { return shares_.load(std::memory_order_relaxed); }
  bool copies_pending() const { return copies_.load(std::memory_order_relaxed) != 0; }
  // Whether a copy that is under way writes to any of these bytes.
  bool lands_in(uint64_t address, uint64_t bytes);

  // Stores signals[slot] = value and tells the worker.
  void signal(uint32_t slot, uint64_t value);
  // Follows a move, notices a dead worker. Called by waiters and, every few milliseconds, by the service thread.
  // False: the vGPU is lost.
  bool look_after();
  // Leaves the worker, whose context is lost, for a new one that knows of nothing. Sequence numbers go on, the error is
  // forgotten. Requires: nobody else sends.
  Outcome renew();
  // The worker knows the counters' values soon; without common memory nothing else carries them.
  void tell_counters();
  // Sleeps until the worker publishes something, at most timeout_us.
  void sleep(uint32_t timeout_us);
  // What a copy in finds ahead of it in the ring, and how fast that goes.
  PackChoice::Path path();
  // Page-locked memory of which large copies are sent: Link::know_memory().
  void know_memory(uint64_t base, uint64_t bytes);
  RemotePlace place_for(const std::byte* to, uint64_t bytes) {
    return is_protected() ? RemotePlace{} : LinkUse(*this)->place_for(to, bytes);
  }
  void forget_memory(uint64_t base);
  // When what the program gives back may still be lent to a link that nobody waits for: it is not read again.
  void stop_reading();
  // In a forked child.
  void abandon();

  Region region() const { return region_; }
  // Of the worker that serves it; grows with each move.
  uint64_t epoch() const { return epoch_.load(std::memory_order_relaxed); }
  // 16 random bytes: this process's use of the vGPU.
  const uint8_t* session() const { return session_; }
  ClientCounters& counters() { return region_.client().counters; }

 private:
  struct LinkHolder {
    std::unique_ptr<Link> link;
    std::atomic<int> users{0};
  };
  // A link that cannot go away while this lives.
  class LinkUse {
   public:
    explicit LinkUse(Channel& channel);
    ~LinkUse() { holder_->users.fetch_sub(1); }
    LinkUse(const LinkUse&) = delete;
    LinkUse& operator=(const LinkUse&) = delete;
    Link& operator*() const { return *holder_->link; }
    Link* operator->() const { return holder_->link.get(); }

   private:
    LinkHolder* holder_;
  };
  struct Pending {
    Reply* reply = nullptr;
    Landing landing;
    uint64_t left = 0;                     // bytes of a copy that are to come
    uint64_t next = 0;                     // bytes of a library that have come
    std::shared_ptr<AnswerDigest> digest;  // of a protected session
    bool compared = false;                 // it is to be the same when it is answered again
    uint32_t puts = 0;                     // threads that write to the landing at this moment, under the locks of links
    uint32_t stream = kNoStream;
  };

  static constexpr uint32_t kPatienceMs = 400;

  explicit Channel(const ChannelOrigin& origin) : origin_(origin) {}
  void start(Region region);
  Outcome connect_first();
  // How to connect, and what came of it.
  struct Attempt {
    Redial* again = nullptr;    // to the worker that has this session; there is no use in waiting long
    int refusal = 0;            // the CUresult with which the far side refused, if it did
    bool nobody_there = false;  // its machine answers, but no agent
    bool unanswered = false;    // there was no agent, or it ended before it answered
    bool hopeless = false;      // what is there cannot go on for us
    DoorOpened opened = {};
  };
  Outcome connect(const std::string& endpoint, uint64_t epoch, Attempt* attempt);
  Outcome dial(const std::string& endpoint, uint64_t epoch, const struct Transport** transport, int* lifeline,
               Attempt* attempt);
  void take_back_lent();
  void replace_link(std::unique_ptr<Link> link);
  void reap_links();
  bool follow_move();
  bool find_again();
  bool come_back(std::string* cause);
  void be_patient();
  bool search(std::string cause, bool* later = nullptr);
  enum class Found { kNotYet, kThere, kLost };
  Found look_for_place(bool ask, bool comes_back, bool waits, std::string* cause);
  void await_place();
  bool was_sent_on() const;
  static bool lock_to_connect(std::unique_lock<std::mutex>* lock);
  bool has_moved_on();
  bool look_elsewhere();
  void fail(CUresult code, const std::string& cause);

  // --- of a protected session (protected.cc)
  void protect();
  void end_protection(Unprotected reason);
  void tell_unprotected();
  bool may_send(const CommandSpec& spec);
  CUresult wait_for_turn(const CommandSpec& spec);
  void keep(const CommandHeader& header, const std::byte* payload);
  void keep_mark(CommandLog::Kind kind, uint32_t slot, uint64_t sequence);
  bool keep_signal(uint32_t slot, uint64_t value);
  void look_after_log();
  void ask_for_checkpoint();
  void trim_log();
  bool repeats_differ();
  void remember(uint64_t sequence, const Pending& pending);
  void compare(const Answer& answer);
  bool set_back(const DoorOpened& opened, std::string* why);
  void await_again();
  bool feed_log();
  bool feed_some();
  bool stream_is_at(uint32_t slot, uint64_t sequence) const {
    return page_->stream_progress[slot].load(std::memory_order_acquire) >= sequence ||
           (protection_ != nullptr && protection_->has_reached_stream(slot, sequence));
  }
  bool event_is_at(uint32_t slot, uint64_t sequence) const {
    return page_->event_done[slot].load(std::memory_order_acquire) >= sequence ||
           (protection_ != nullptr && protection_->has_reached_event(slot, sequence));
  }
  // The program has seen that it is.
  void saw(CommandLog::Kind kind, uint32_t slot, uint64_t sequence) {
    if (is_protected()) keep_mark(kind, slot, sequence);
  }

  template <class Ready>
  CUresult wait(Ready ready, uint64_t* waited_ns);
  CUresult wait_for_space(uint32_t payload_bytes);
  void expect(uint64_t sequence, const CommandSpec& spec);
  void put_bulk(std::byte* payload, const CommandSpec& spec);
  CUresult take_new_error();
  void wake_worker();
  void take(const Answer& answer);
  void take_data(const Answer& answer);
  bool put(const AnswerHeader& header, uint64_t at, const std::byte* from, uint64_t bytes) override;
  void erase(std::unique_lock<std::mutex>* pending, uint64_t sequence);
  const std::byte* unpack(const Answer& answer, uint64_t bytes);
  void take_reply(const Answer& answer);
  void take_page(const Answer& answer);
  void sweep_copies();

  ChannelOrigin origin_;
  uint8_t session_[16] = {};
  int region_fd_ = -1;
  Region region_;
  ClientPage* own_ = nullptr;
  WorkerPage* page_ = nullptr;

  SpinLock lock_;
  std::atomic<bool> protected_{false};  // changes under lock_
  CommandWriter writer_;
  Link* lender_ = nullptr;             // to which bulk may be lent
  std::unique_ptr<Word[]> last_work_;  // by stream slot: sequence of its last command

  std::unique_ptr<Protection> protection_;  // null: it never was; made before anything is sent
  uint64_t errors_before_ = 0;              // WorkerPage::errors, when it began
  std::atomic<uint64_t> trimmed_to_{0};
  std::atomic<uint64_t> unprotected_told_{0};
  std::atomic<uint64_t> asked_checkpoint_ns_{0};

  std::mutex drain_mu_;
  AnswerReader reader_;
  Unpacker unpacker_;                      // under drain_mu_
  std::unique_ptr<std::byte[]> unpacked_;  // likewise
  std::mutex pending_mu_;
  std::unordered_map<uint64_t, Pending> pending_;  // by sequence
  std::atomic<uint64_t> copies_{0};
  ToldPages told_;                           // under pending_mu_
  uint64_t taken_to_ = 0, executed_to_ = 0;  // of take_told()'s caller

  std::mutex error_mu_;
  std::atomic<uint64_t> errors_seen_{0};
  std::atomic<int> failure_{0};    // CUresult for ever
  std::atomic<bool> lost_{false};  // the vGPU itself, not only its context

  std::mutex reconnect_mu_;
  std::atomic<LinkHolder*> link_{nullptr};
  std::vector<LinkHolder*> retired_;        // under reconnect_mu_
  std::atomic<uint32_t> retired_links_{0};  // of those, whose link is not closed yet
  std::atomic<uint64_t> epoch_{0};
  std::atomic<bool> shares_{false};
  std::atomic<uint64_t> opened_shared_{0};  // memory_shared() of a worker that has not said so in its page yet
  uint32_t attempts_ = 0;                   // DoorOpen::attempt of the last
  uint32_t hold_ms_ = 0;                    // the worker waits so long for us when the connection breaks
  uint32_t patience_ms_ = kPatienceMs;      // Link::expect_answers
  uint64_t alarm_ns_ = 0;                   // when that was too short
  uint64_t asked_ns_ = 0;                   // has_moved_on()
  // For a vGPU that is nowhere: since when, until when, when that was last done, and whether it was said. 0: for none.
  struct Search {
    uint64_t begin_ns = 0, deadline_ns = 0, looked_ns = 0;
    bool asks = false, said = false;  // the scheduler is to be asked next; and what it said was told
  };
  Search search_;
  // What was told of the counters (their sum) and of round trips; the service thread's.
  uint64_t counted_ = 0, waits_told_ = 0, told_ns_ = 0;
  uint64_t trips_told_[kTripSlots] = {};
};

template <class Fill>
CUresult Channel::send(const CommandSpec& spec, Fill&& fill, uint64_t* sequence) {
  while (true) {
    if (lost_.load(std::memory_order_relaxed)) return CUresult(failure_.load());
    bool my_turn = true;
    {
      const std::lock_guard lock(lock_);
      const bool is_kept = protected_.load(std::memory_order_relaxed);
      if (is_kept) [[unlikely]]
        my_turn = may_send(spec);
      if (CommandHeader* header = my_turn ? writer_.reserve(spec.payload_bytes) : nullptr; header != nullptr) {
        fill(reinterpret_cast<std::byte*>(header + 1));
        if (spec.bulk_bytes != 0) put_bulk(reinterpret_cast<std::byte*>(header + 1), spec);
        header->call = uint16_t(spec.call);
        header->flags = spec.reply != nullptr && !spec.library ? kCommandAnswer : 0;
        header->context = spec.context;
        header->stream = spec.stream;
        const uint64_t number = header->sequence;
        if (spec.reply != nullptr || spec.landing != nullptr) expect(number, spec);
        if (spec.stream != kNoStream) last_work_[spec.stream].store(number, std::memory_order_release);
        if (is_kept) [[unlikely]]
          keep(*header, reinterpret_cast<const std::byte*>(header + 1));
        writer_.publish(header);
        Word& commands = own_->counters.commands;
        commands.store(commands.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        if (sequence != nullptr) *sequence = number;
        ++thread_state.travel.commands;
        thread_state.travel.sent_bytes += sizeof(CommandHeader) + spec.payload_bytes;
        break;
      }
    }
    const CUresult r = my_turn ? wait_for_space(spec.payload_bytes) : wait_for_turn(spec);
    if (r != CUDA_SUCCESS) return r;
  }
  if (must_ring(region_)) wake_worker();
  return CUDA_SUCCESS;
}

}  // namespace tide
