#include "interpose/channel.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "api/payload.h"
#include "base/clock.h"
#include "base/log.h"
#include "interpose/pool.h"

namespace tide {
namespace {

constexpr uint32_t kWaitSliceUs = 20'000;  // how often a waiter asks whether the worker lives
constexpr uint64_t kTellWaitsNs = 1'000'000'000;
constexpr uint64_t kLibraryBytesMax = 256u << 20;
// Blocks may come and go before somebody takes in what was told of them.
constexpr uint64_t kToldPagesMax = 16 * kToldBytes / ToldPage::kBytes;

}  // namespace

Channel::LinkUse::LinkUse(Channel& channel) {
  while (true) {
    holder_ = channel.link_.load();
    holder_->users.fetch_add(1);
    if (channel.link_.load() == holder_) return;
    holder_->users.fetch_sub(1);
  }
}

Channel::~Channel() {
  if (LinkHolder* holder = link_.load(); holder != nullptr) delete holder;
  for (LinkHolder* holder : retired_) delete holder;
  if (region_fd_ >= 0) destroy_region(region_fd_, region_);
}

std::unique_ptr<Channel> Channel::adopt(Region region, std::unique_ptr<Link> link) {
  std::unique_ptr<Channel> channel(new Channel(ChannelOrigin{}));
  channel->start(region);
  channel->replace_link(std::move(link));
  return channel;
}

void Channel::start(Region region) {
  region_ = region;
  own_ = &region.client();
  page_ = &region.worker();
  writer_ = CommandWriter(region);
  reader_ = AnswerReader(region);
  last_work_.reset(new Word[kStreamSlots]());
}

// --- waiting
// ----------------------------------------------------------------------------------------------------------

// What is waited for is told while it is waited for: it may take minutes.
template <class Ready>
CUresult Channel::wait(Ready ready, uint64_t* waited_ns) {
  const uint64_t begin = now_ns();
  uint64_t told = begin;
  const auto tell = [&] {
    const uint64_t now = now_ns();
    own_->counters.wait_ns.fetch_add(now - told, std::memory_order_relaxed);
    told = now;
    *waited_ns = now - begin;
  };
  const auto attention = [this] {
    return page_->answer_head.load(std::memory_order_acquire) != own_->answer_tail.load(std::memory_order_relaxed) ||
           page_->state.load(std::memory_order_relaxed) >= uint64_t(ChannelState::kMoved);
  };
  while (!ready()) {
    drain();
    if (ready()) break;
    if (lost_.load()) return CUresult(failure_.load());
    WaitResult result;
    {
      LinkUse link(*this);
      result = wait_until(
          *link, Side::kClient, [&] { return ready() || attention(); }, kWaitSliceUs);
    }
    tell();
    const bool stopped = page_->state.load(std::memory_order_acquire) >= uint64_t(ChannelState::kMoved);
    if ((result == WaitResult::kGone || stopped) && !ready()) look_after();
    // A move that this thread cannot hasten, or answers that another thread is taking in.
    if (result == WaitResult::kReady && !ready()) sched_yield();
  }
  drain();
  return CUDA_SUCCESS;
}

CUresult Channel::wait_for_space(uint32_t payload_bytes) {
  // Twice the record: padding at the ring's end may come before it.
  const uint64_t needed = 2 * record_bytes(sizeof(CommandHeader), payload_bytes);
  uint64_t waited = 0;
  return wait(
      [this, needed] {
        const uint64_t tail = page_->command_tail.load(std::memory_order_acquire);
        return own_->command_head.load(std::memory_order_relaxed) - tail + needed <= kCommandRingBytes;
      },
      &waited);
}

CUresult Channel::wait_taken(uint64_t cursor) {
  uint64_t waited = 0;
  const CUresult r =
      wait([this, cursor] { return page_->command_tail.load(std::memory_order_acquire) >= cursor; }, &waited);
  if (r != CUDA_SUCCESS) stop_reading();
  return r;
}

#define TIDE_COUNTED_WAIT(ready)                                        \
  const auto is_ready = ready;                                          \
  CUresult result = CUDA_SUCCESS;                                       \
  if (is_ready()) {                                                     \
    drain();                                                            \
  } else {                                                              \
    uint64_t waited = 0;                                                \
    own_->trips.count(uint16_t(thread_state.call));                     \
    own_->counters.round_trips.fetch_add(1, std::memory_order_relaxed); \
    result = wait(is_ready, &waited);                                   \
    ++thread_state.travel.round_trips;                                  \
    thread_state.travel.wait_ns += waited;                              \
  }

CUresult Channel::wait_stream(uint32_t slot, uint64_t sequence) {
  TIDE_COUNTED_WAIT(([&] { return stream_is_at(slot, sequence); }))
  if (result == CUDA_SUCCESS) saw(CommandLog::Kind::kStreamMark, slot, sequence);
  return result != CUDA_SUCCESS ? result : take_error();
}

CUresult Channel::wait_event(uint32_t slot, uint64_t sequence) {
  TIDE_COUNTED_WAIT(([&] { return event_is_at(slot, sequence); }))
  if (result == CUDA_SUCCESS) saw(CommandLog::Kind::kEventMark, slot, sequence);
  return result != CUDA_SUCCESS ? result : take_error();
}

CUresult Channel::wait_reply(Reply& reply) {
  const uint64_t trips = thread_state.travel.round_trips;
  TIDE_COUNTED_WAIT(([&] { return reply.done.load(std::memory_order_acquire); }))
  thread_state.travel.round_trips = trips + 1;  // an answer is one also where it came at once
  thread_state.travel.received_bytes += reply.payload.size();
  return result;
}

CUresult Channel::wait_all(uint32_t count) {
  // What is waited for is fixed before the wait: work that other threads add meanwhile does not prolong it.
  std::vector<std::pair<uint32_t, uint64_t>> open, all;
  for (uint32_t slot = 0; slot < count; ++slot) {
    const uint64_t last = last_work(slot);
    if (is_protected() && last != 0) all.emplace_back(slot, last);
    if (!stream_is_at(slot, last)) open.emplace_back(slot, last);
  }
  TIDE_COUNTED_WAIT(([&] {
    while (!open.empty()) {
      const auto [slot, sequence] = open.back();
      if (!stream_is_at(slot, sequence)) return false;
      open.pop_back();
    }
    return true;
  }))
  if (result == CUDA_SUCCESS) {
    for (const auto& [slot, sequence] : all) saw(CommandLog::Kind::kStreamMark, slot, sequence);
  }
  return result != CUDA_SUCCESS ? result : take_error();
}

bool Channel::done(uint32_t slot, uint64_t sequence) {
  const bool is_done = stream_is_at(slot, sequence);
  if (!is_done && !lost_.load(std::memory_order_relaxed)) LinkUse(*this)->progress();
  drain();
  if (is_done) saw(CommandLog::Kind::kStreamMark, slot, sequence);
  return is_done || lost_.load(std::memory_order_relaxed);
}

bool Channel::event_done(uint32_t slot, uint64_t sequence) {
  const bool is_done = event_is_at(slot, sequence);
  if (!is_done && !lost_.load(std::memory_order_relaxed)) LinkUse(*this)->progress();
  drain();
  if (is_done) saw(CommandLog::Kind::kEventMark, slot, sequence);
  return is_done || lost_.load(std::memory_order_relaxed);
}

void Channel::sleep(uint32_t timeout_us) {
  LinkUse link(*this);
  const uint64_t head = page_->answer_head.load();
  wait_until(
      *link, Side::kClient, [&] { return page_->answer_head.load(std::memory_order_acquire) != head; }, timeout_us);
}

PackChoice::Path Channel::path() {
  const LinkUse link(*this);
  return {link->bytes_per_s(), link->on_the_way()};
}

void Channel::know_memory(uint64_t base, uint64_t bytes) {
  LinkUse(*this)->know_memory(reinterpret_cast<const std::byte*>(base), bytes, true);
}

void Channel::forget_memory(uint64_t base) { LinkUse(*this)->forget_memory(reinterpret_cast<const std::byte*>(base)); }

// --- answers
// ----------------------------------------------------------------------------------------------------------

void Channel::expect(uint64_t sequence, const CommandSpec& spec) {
  Pending pending;
  pending.reply = spec.reply;
  pending.stream = spec.stream;
  if (spec.landing != nullptr) {
    pending.landing = *spec.landing;
    pending.left = spec.landing->width * spec.landing->height;
    thread_state.travel.received_bytes += pending.left;
    copies_.fetch_add(1, std::memory_order_relaxed);
  }
  if (is_protected()) {
    pending.digest = std::make_shared<AnswerDigest>();
    pending.compared = Protection::is_compared(uint16_t(spec.call));
  }
  const std::lock_guard lock(pending_mu_);
  pending_.emplace(sequence, std::move(pending));
}

// Under lock_. Page-locked memory need not pass through the ring.
void Channel::put_bulk(std::byte* payload, const CommandSpec& spec) {
  const uint64_t own = spec.payload_bytes - spec.bulk_bytes;
  const uint64_t begin = writer_.start() + sizeof(CommandHeader) + own;
  if (lender_ != nullptr && lender_->lend(begin, spec.bulk, spec.bulk_bytes)) return;
  memcpy(payload + own, spec.bulk, spec.bulk_bytes);
}

// Packed bytes from `offset` on.
void Landing::put(uint64_t offset, const std::byte* from, uint64_t bytes) const {
  while (bytes > 0) {
    const uint64_t column = offset % width, piece = std::min(bytes, width - column);
    memcpy(destination + offset / width * pitch + column, from, piece);
    from += piece;
    offset += piece;
    bytes -= piece;
  }
}

void Channel::forget(uint64_t sequence) {
  const std::lock_guard draining(drain_mu_);
  std::unique_lock lock(pending_mu_);
  erase(&lock, sequence);
}

// Nothing is written to its landing any more when this returns.
void Channel::erase(std::unique_lock<std::mutex>* pending, uint64_t sequence) {
  auto it = pending_.find(sequence);
  for (; it != pending_.end() && it->second.puts != 0; it = pending_.find(sequence)) {
    pending->unlock();
    sched_yield();
    pending->lock();
  }
  if (it == pending_.end()) return;
  if (it->second.reply == nullptr) copies_.fetch_sub(1, std::memory_order_relaxed);
  pending_.erase(it);
}

bool Channel::lands_in(uint64_t address, uint64_t bytes) {
  if (!copies_pending()) return false;
  drain();
  const std::lock_guard lock(pending_mu_);
  return std::any_of(pending_.begin(), pending_.end(), [&](const auto& item) {
    const Landing& l = item.second.landing;
    if (item.second.reply != nullptr || l.height == 0) return false;
    const auto begin = reinterpret_cast<uint64_t>(l.destination);
    return begin < address + bytes && address < begin + l.pitch * (l.height - 1) + l.width;
  });
}

void Channel::drain() {
  // Both equal means that everything published has been taken in, not only read.
  if (page_->answer_head.load(std::memory_order_acquire) == own_->answer_tail.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(drain_mu_);
  Answer answer;
  ReadState state;
  while ((state = reader_.next(&answer)) == ReadState::kRecord) {
    take(answer);
    reader_.consume(answer);
  }
  if (state == ReadState::kMalformed && !lost_.load()) {
    fail(CUDA_ERROR_DEVICE_UNAVAILABLE, std::string("the worker's answers are malformed: ") + reader_.reason());
  }
}

void Channel::take(const Answer& answer) {
  switch (AnswerKind(answer.header.kind)) {
    case AnswerKind::kPad:
      return;
    case AnswerKind::kData:
    case AnswerKind::kPackedData:
      return take_data(answer);
    case AnswerKind::kResult:
    case AnswerKind::kLibrary:
      return take_reply(answer);
    case AnswerKind::kPage:
      return take_page(answer);
    case AnswerKind::kText: {
      const uint32_t bytes = answer.header.payload_bytes;
      const uint64_t again = protection_ ? protection_->text.take(answer.header.result, bytes, answer.end) : 0;
      fwrite(answer.payload + again, 1, bytes - again, answer.header.result == 2 ? stderr : stdout);
      return;
    }
  }
  log(LogLevel::kDebug, "an answer of unknown kind %u is ignored", unsigned(answer.header.kind));
}

// Null, and the vGPU is lost, where it is damaged.
const std::byte* Channel::unpack(const Answer& answer, uint64_t bytes) {
  if (unpacked_ == nullptr) unpacked_.reset(new std::byte[kPackedPieceMax]);
  if (unpacker_.unpack({answer.payload, answer.header.payload_bytes}, unpacked_.get(), bytes)) return unpacked_.get();
  fail(CUDA_ERROR_DEVICE_UNAVAILABLE, "the worker sent packed data that cannot be unpacked");
  return nullptr;
}

void Channel::take_data(const Answer& answer) {
  Landing landing;
  std::shared_ptr<AnswerDigest> digest;
  const bool landed = answer.header.kind == uint16_t(AnswerKind::kData) && answer.header.flags == kAnswerLanded;
  const bool packed = answer.header.kind == uint16_t(AnswerKind::kPackedData);
  const uint64_t bytes = packed ? uint32_t(answer.header.result) : answer.header.payload_bytes;
  {
    std::unique_lock lock(pending_mu_);
    const auto it = pending_.find(answer.header.sequence);
    if (it == pending_.end() || it->second.reply != nullptr) {  // given up meanwhile, or it comes a second time
      lock.unlock();
      return compare(answer);
    }
    landing = it->second.landing;
    digest = it->second.digest;
    if (!landing.holds(answer.header.offset, bytes) || bytes > it->second.left) {
      log(LogLevel::kError, "data of command %llu do not fit where they were asked for; ignored",
          static_cast<unsigned long long>(answer.header.sequence));
      return;
    }
  }
  const std::byte* from = packed ? unpack(answer, bytes) : answer.payload;
  if (from == nullptr) return;
  if (!landed) landing.put(answer.header.offset, from, bytes);
  if (packed) own_->counters.saved_out.fetch_add(bytes - answer.header.payload_bytes, std::memory_order_relaxed);
  own_->counters.bytes_out.fetch_add(bytes, std::memory_order_relaxed);
  if (digest != nullptr && !digest->add(answer.header.offset, from, bytes))
    return fail(CUDA_ERROR_DEVICE_UNAVAILABLE, "the worker sent the parts of a copy in another order");
  std::unique_lock lock(pending_mu_);
  const auto it = pending_.find(answer.header.sequence);
  if (it == pending_.end() || (it->second.left -= bytes) != 0) return;
  remember(answer.header.sequence, it->second);
  erase(&lock, answer.header.sequence);
}

// The same bytes may come twice, behind a break; the copy is over when the record is taken out of the ring. Who takes
// the copy out of pending_ waits for us, but not under a lock: this is a memcpy of up to 256 KiB.
bool Channel::put(const AnswerHeader& header, uint64_t at, const std::byte* from, uint64_t bytes) {
  Landing landing;
  {
    const std::lock_guard lock(pending_mu_);
    const auto it = pending_.find(header.sequence);
    if (lost_.load() || it == pending_.end() || it->second.reply != nullptr) return false;
    landing = it->second.landing;
    if (!landing.holds(header.offset, header.payload_bytes) || header.payload_bytes > it->second.left) return false;
    ++it->second.puts;
  }
  landing.put(header.offset + at, from, bytes);
  const std::lock_guard lock(pending_mu_);
  --pending_.find(header.sequence)->second.puts;
  return true;
}

void Channel::take_reply(const Answer& answer) {
  std::unique_lock lock(pending_mu_);
  const auto it = pending_.find(answer.header.sequence);
  if (it == pending_.end() || it->second.reply == nullptr) {
    lock.unlock();
    return compare(answer);
  }
  Reply& reply = *it->second.reply;
  const bool library = answer.header.kind == uint16_t(AnswerKind::kLibrary);
  if (library && (answer.header.offset != reply.payload.size() || reply.payload.size() > kLibraryBytesMax)) {
    log(LogLevel::kError, "the parts of a library's description do not fit together; ignored");
    return;
  }
  reply.payload.insert(reply.payload.end(), answer.payload, answer.payload + answer.header.payload_bytes);
  AnswerDigest* const digest = it->second.digest.get();
  if (digest != nullptr) (void)digest->add(digest->bytes(), answer.payload, answer.header.payload_bytes);
  if (library && (answer.header.flags & 1) == 0) return;
  if (digest != nullptr) digest->set_result(answer.header.result);
  remember(answer.header.sequence, it->second);
  reply.result = CUresult(answer.header.result);
  reply.done.store(true, std::memory_order_release);
  pending_.erase(it);
}

void Channel::take_page(const Answer& answer) {
  const std::lock_guard lock(pending_mu_);
  const AnswerHeader& header = answer.header;
  if (header.payload_bytes != ToldPage::kBytes || header.offset % ToldPage::kBytes != 0 || told_.size() > kToldPagesMax)
    return fail(CUDA_ERROR_DEVICE_UNAVAILABLE, "the worker tells what is no page of host memory, or too many");
  ToldPage& page = told_[header.offset];
  page.executed = header.sequence;
  memcpy(page.bytes.data(), answer.payload, ToldPage::kBytes);
}

// A page that was found before a command was executed is in the ring before the worker's word that it was.
ToldPages Channel::take_told() {
  executed_to_ = page_->acknowledged.load(std::memory_order_acquire);
  drain();
  const std::lock_guard lock(pending_mu_);
  taken_to_ = own_->answer_tail.load(std::memory_order_acquire);
  return std::exchange(told_, {});
}

void Channel::sweep_copies() {
  // A copy that failed sends no more data: when its stream is past it, nothing is to come.
  const std::lock_guard lock(pending_mu_);
  for (auto it = pending_.begin(); it != pending_.end();) {
    const Pending& p = it->second;
    const bool over = p.reply == nullptr && p.stream != kNoStream && stream_is_at(p.stream, it->first) &&
                      page_->answer_head.load(std::memory_order_acquire) == own_->answer_tail.load();
    if (over && p.puts == 0) copies_.fetch_sub(1, std::memory_order_relaxed);
    it = over && p.puts == 0 ? pending_.erase(it) : std::next(it);
  }
}

// --- errors
// -----------------------------------------------------------------------------------------------------------

CUresult Channel::take_new_error() {
  const std::lock_guard lock(error_mu_);
  const uint64_t errors = page_->errors.load(std::memory_order_acquire);
  if (errors == errors_seen_.load()) return CUresult(failure_.load());
  errors_seen_.store(errors);
  const auto code = CUresult(page_->error.load(std::memory_order_acquire));
  const uint64_t sequence = page_->error_sequence.load(std::memory_order_relaxed);
  const bool sticky = page_->sticky.load(std::memory_order_relaxed) != 0;
  if (code == CUDA_SUCCESS) return CUDA_SUCCESS;
  if (protection_ != nullptr && repeats_differ()) return CUresult(failure_.load());
  log(LogLevel::kInfo, "vGPU %u: command %llu failed with error %d%s", origin_.vgpu,
      static_cast<unsigned long long>(sequence), int(code), sticky ? ", the context is lost" : "");
  if (sticky) failure_.store(code);
  sweep_copies();
  return code;
}

void Channel::fail(CUresult code, const std::string& cause) {
  int expected = 0;
  failure_.compare_exchange_strong(expected, code);
  if (lost_.exchange(true)) return;
  log(LogLevel::kError, "vGPU %u is lost: %s; the job has to be started again (`tide status` shows the pool)",
      origin_.vgpu, cause.c_str());
}

// --- signals
// ----------------------------------------------------------------------------------------------------------

void Channel::wake_worker() {
  LinkUse(*this)->wake();
  if (origin_.stirred != nullptr) origin_.stirred();
}

void Channel::tell_counters() {
  ClientCounters& c = own_->counters;
  const Word* const counts[] = {&c.commands,   &c.round_trips, &c.bytes_in,  &c.bytes_out, &c.wait_ns,
                                &c.reconnects, &c.saved_in,    &c.saved_out, &c.kept_in};
  uint64_t sum = 0;
  for (const Word* count : counts) sum += count->load(std::memory_order_relaxed);
  // A wait that is under way is no news yet, but in the end.
  const uint64_t now = now_ns(), waits = c.wait_ns.load(std::memory_order_relaxed);
  const bool only_waits = sum - waits == counted_ - waits_told_ && now - told_ns_ < kTellWaitsNs;
  if (sum == counted_ || only_waits || lost_.load()) return;
  LinkUse link(*this);
  c.link_round_trip_us.store(link->round_trip_us(), std::memory_order_relaxed);
  c.link_bytes_per_s.store(link->bytes_per_s(), std::memory_order_relaxed);
  counted_ = sum;
  waits_told_ = waits;
  told_ns_ = now;
  for (const Word* count : counts) link->note(*count);
  link->note(c.link_round_trip_us);
  link->note(c.link_bytes_per_s);
  for (uint32_t i = 0; i < kTripSlots; ++i) {
    const uint64_t trips = own_->trips.words[i].load(std::memory_order_relaxed);
    if (std::exchange(trips_told_[i], trips) != trips) link->note(own_->trips.words[i]);
  }
  notify(*link, Side::kClient);
}

void Channel::signal(uint32_t slot, uint64_t value) {
  if (!is_protected()) {
    own_->signals[slot].store(value, std::memory_order_release);
  } else if (!keep_signal(slot, value)) {
    return;  // it is stored in its turn
  }
  if (lost_.load()) return;
  LinkUse link(*this);
  link->note(own_->signals[slot]);
  link->progress();
  notify(*link, Side::kClient);
}

}  // namespace tide
