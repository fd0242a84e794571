#include "server/time_slices.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/descriptors.h"

namespace tide {
namespace {

constexpr uint32_t kSeats = 128;  // parts are a hundredth at least; some vGPUs come while others go
constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kRoundNs = 5 * kMs;  // in which each has its slice once,
constexpr uint64_t kBatchNs = 1 * kMs;  // and what a batch should take
// The same between vGPUs of one job. Nobody there waits for an answer sooner, and each change and each rest costs all.
constexpr uint64_t kSiblingsRoundNs = 40 * kMs, kSiblingsBatchNs = 5 * kMs;
constexpr uint64_t kFreshNs = 30 * kMs;      // so long it counts that a worker had something to do
constexpr uint64_t kThinkNs = 1 * kMs;       // and when it has nothing more: its program may be about to go on
constexpr uint64_t kThinkFirstNs = kMs / 5;  // the same of one that goes first when it does
constexpr uint64_t kCreditNs = 200 * kMs;    // of one that goes first, for a share of 1000
constexpr uint64_t kSilentNs = 20 * kMs;     // of a worker with work under way; then it is not waited for
constexpr uint64_t kRestNs = 5 * kMs;        // for a batch to come to rest, which may need a command of the next
constexpr uint64_t kStuckNs = 40 * kMs;      // one command is begun then, whosever turn it is
constexpr uint64_t kRecentNs = 1'000 * kMs;
constexpr uint64_t kLookNs = 1'000 * kMs;
constexpr uint64_t kPeriodNs = 2 * kLookNs;  // in which every worker looks once
constexpr uint64_t kLeftNs = 30'000 * kMs;   // a seat nobody came to for so long is free
constexpr uint32_t kBatchMost = 256;
constexpr uint64_t kWhole = 1000;

using Word = std::atomic<uint64_t>;

// Also of what another boot's clock said, which may be ahead.
bool within(const Word& stamp, uint64_t ns, uint64_t now) {
  const uint64_t at = stamp.load(std::memory_order_relaxed);
  return at != 0 && at < now + kFreshNs && now < at + ns;
}

constexpr uint32_t kLatency = 1;  // of SliceSeat::flags: it is of the latency class,
constexpr uint32_t kSpent = 2;    // and too far ahead to go first

}  // namespace

struct alignas(64) SliceSeat {
  Word vgpu{0};                      // 0: free
  Word used_ns{0};                   // for a share of 1000
  Word seen_ns{0};                   // a worker of it was here
  Word wants_ns{0};                  // had something to do
  Word runs_ns{0};                   // had work under way
  Word gives_ns{0};                  // since when it begins nothing because it shall give the turn away; 0: it need not
  std::atomic<uint32_t> runners{0};  // workers with work under way
  // Of the workers that live, each counts itself once in a period: its number, and how many in it and in the one
  // before.
  std::atomic<uint32_t> workers{0};
  std::atomic<uint32_t> share{0};
  std::atomic<uint32_t> flags{0};
};
static_assert(sizeof(SliceSeat) == 64, "workers of the release before have the same page");

// Zeros are a page where nobody sits.
struct SlicePage {
  std::atomic<uint32_t> sharers{0};  // vGPUs with a seat, when it was looked last
  std::atomic<uint32_t> seats{0};    // behind the last that was ever taken
  Word turn{0};                      // whose it is: seat + 1; 0: nobody's
  alignas(64) SliceSeat seat[kSeats];
};

TimeSlices::~TimeSlices() {
  if (page_ != nullptr) munmap(page_, sizeof(SlicePage));
}

SliceSeat& TimeSlices::seat() const { return page_->seat[index_]; }

uint64_t TimeSlices::used_ns() const { return page_ == nullptr ? 0 : seat().used_ns.load(); }

template <class Is>
const SliceSeat* TimeSlices::other(Is is) const {
  const uint32_t seats = std::min(page_->seats.load(std::memory_order_relaxed), kSeats);
  for (uint32_t i = 0; i < seats; ++i) {
    const SliceSeat& each = page_->seat[i];
    if (i != index_ && each.vgpu.load(std::memory_order_relaxed) != 0 && is(each)) return &each;
  }
  return nullptr;
}

Outcome TimeSlices::start(const std::string& path, const Sharer& sharer, uint64_t now) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return errno_failure("cannot open " + path);
  void* page = ftruncate(fd, sizeof(SlicePage)) != 0
                   ? MAP_FAILED
                   : mmap(nullptr, sizeof(SlicePage), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const Outcome failed = page == MAP_FAILED ? errno_failure("cannot map " + path) : Outcome();
  close(fd);
  if (!failed.ok()) return failed;
  page_ = static_cast<SlicePage*>(page);
  self_ = sharer;
  sit(now);
  if (seat().vgpu.load() != self_.vgpu) return Outcome::fail("more vGPUs share this GPU than " + path + " has seats");
  look(now);
  sharers_ = &page_->sharers;
  return {};
}

void TimeSlices::leave(uint64_t now) {
  if (sharers_ == nullptr) return;
  sharers_ = nullptr;
  if (working_) come_to_rest(now);
  if (count_workers(now, false) > 1) return;
  uint64_t ours = self_.vgpu;
  if (seat().vgpu.compare_exchange_strong(ours, 0)) count_sharers();
}

// Workers of the vGPU that have looked in this period of time or the one before. `counts`: and this one, now.
uint32_t TimeSlices::count_workers(uint64_t now, bool counts) {
  const uint32_t period = uint32_t(now / kPeriodNs) & 0xffff;
  std::atomic<uint32_t>& workers = seat().workers;
  for (uint32_t seen = workers.load();;) {
    const uint32_t counted = seen >> 16, here = seen & 0xff;
    uint32_t last = seen >> 8 & 0xff, now_here = here;
    if (counted != period) {
      last = ((counted + 1) & 0xffff) == period ? here : 0;
      now_here = 0;
    }
    if (counts) now_here = std::min(now_here + 1, 0xffu);
    if (workers.compare_exchange_weak(seen, period << 16 | last << 8 | now_here)) return std::max({1u, last, now_here});
  }
}

// Those that died while they had work under way leave the number of runners too high.
void TimeSlices::forget_dead(uint64_t now) {
  const uint64_t period = now / kPeriodNs;
  const uint32_t alive = count_workers(now, counted_period_ != period);
  counted_period_ = period;
  const uint32_t most = working_ ? alive : alive - 1;
  for (uint32_t runners = seat().runners.load(); runners > most;) {
    if (seat().runners.compare_exchange_weak(runners, most)) return;
  }
}

// At the vGPU's seat, or a free one. Two workers of one that come at once may take one each: the next look mends it.
void TimeSlices::sit(uint64_t now) {
  working_ = false;
  counted_period_ = 0;
  for (uint32_t i = 0; i < kSeats; ++i) {
    if (page_->seat[i].vgpu.load() == self_.vgpu) return void(index_ = i);
  }
  for (uint32_t i = 0; i < kSeats; ++i) {
    SliceSeat& free = page_->seat[i];
    uint64_t nobody = 0;
    if (!free.vgpu.compare_exchange_strong(nobody, self_.vgpu)) continue;
    for (Word* word : {&free.used_ns, &free.wants_ns, &free.runs_ns, &free.gives_ns}) word->store(0);
    free.runners.store(0);
    free.workers.store(0);
    free.share.store(self_.share);
    free.flags.store(self_.latency ? kLatency : 0);
    free.seen_ns.store(now);
    index_ = i;
    for (uint32_t seats = page_->seats.load(); seats <= i && !page_->seats.compare_exchange_weak(seats, i + 1);) {
    }
    return;
  }
}

// Once a second: that we are here, and who has gone.
void TimeSlices::look(uint64_t now) {
  looked_ns_ = now;
  uint32_t first = index_;
  for (uint32_t i = 0; i < index_; ++i) {
    if (page_->seat[i].vgpu.load() == self_.vgpu) first = i;
  }
  if (first != index_) {
    if (working_) come_to_rest(now);
    seat().vgpu.store(0);
  }
  if (first != index_ || seat().vgpu.load() != self_.vgpu) sit(now);
  seat().seen_ns.store(now);
  forget_dead(now);
  if (!within(seat().runs_ns, kRecentNs, now)) seat().runners.store(working_ ? 1 : 0);  // of workers that died
  for (SliceSeat& each : page_->seat) {
    uint64_t vgpu = each.vgpu.load();
    if (vgpu == 0 || vgpu == self_.vgpu || within(each.seen_ns, kLeftNs, now)) continue;
    each.vgpu.compare_exchange_strong(vgpu, 0);
  }
  count_sharers();
}

void TimeSlices::count_sharers() {
  uint32_t sharers = 0;
  uint64_t shares = 0;
  for (const SliceSeat& each : page_->seat) {
    if (each.vgpu.load() == 0) continue;
    ++sharers;
    shares += each.share.load();
  }
  page_->sharers.store(sharers);
  slice_ns_ = (self_.siblings ? kSiblingsRoundNs : kRoundNs) * kWhole / std::max<uint64_t>(shares, 1);
}

void TimeSlices::charge(uint64_t now) {
  // Who was stopped, or in one long call, is not behind by what others had meanwhile.
  if (!within(seat().wants_ns, kFreshNs, now)) catch_up(now);
  // What takes longer is the driver's call, or we were stopped.
  const uint64_t ns = std::min(now - std::min(charged_ns_, now), kSilentNs);
  charged_ns_ = now;
  const uint64_t runners = std::max(1u, seat().runners.load(std::memory_order_relaxed));
  left_over_ += ns * kWhole;
  seat().used_ns.fetch_add(left_over_ / (self_.share * runners), std::memory_order_relaxed);
  left_over_ %= self_.share * runners;
  seat().runs_ns.store(now, std::memory_order_relaxed);
  seat().wants_ns.store(now, std::memory_order_relaxed);
  if (self_.latency) count_credit(now);
}

bool TimeSlices::goes_first(const SliceSeat& seat) const {
  return seat.flags.load(std::memory_order_relaxed) == kLatency;
}

// It goes first until it is too far ahead of one that does not, and then again when that one had its slice.
void TimeSlices::count_credit(uint64_t now) {
  const uint64_t used = seat().used_ns.load();
  const uint64_t most = goes_first(seat()) ? kCreditNs : kCreditNs - std::min(slice_ns_, kCreditNs);
  const bool spent = other([&](const SliceSeat& each) {
                       return (each.flags.load() & kLatency) == 0 && within(each.wants_ns, kFreshNs, now) &&
                              each.used_ns.load() + most <= used;
                     }) != nullptr;
  seat().flags.store(spent ? kLatency | kSpent : kLatency, std::memory_order_relaxed);
}

void TimeSlices::begin_work(uint64_t now) {
  working_ = true;
  charged_ns_ = now;
  seat().runs_ns.store(now);
  seat().runners.fetch_add(1);
}

// The last of the job's workers leaves the turn to the others. Ours only if it was not taken meanwhile.
void TimeSlices::come_to_rest(uint64_t now) {
  working_ = false;
  uint32_t runners = seat().runners.load();
  while (runners != 0 && !seat().runners.compare_exchange_weak(runners, runners - 1)) {
  }
  if (runners > 1) return;
  const uint64_t think_ns = self_.siblings ? 0 : goes_first(seat()) ? kThinkFirstNs : kThinkNs;
  seat().wants_ns.store(now - std::min(now, kFreshNs - think_ns));
  uint64_t ours = index_ + 1;
  page_->turn.compare_exchange_strong(ours, 0);
}

void TimeSlices::end_batch(uint64_t now) {
  const uint64_t took = now - std::min(batch_ns_, now);
  const bool full = begun_ >= batch_;
  const uint64_t should = self_.siblings ? kSiblingsBatchNs : kBatchNs;
  if (full && took < should / 2) batch_ = std::min(batch_ * 2, kBatchMost);
  if (full && took > should * 2) batch_ = std::max(batch_ / 2, 1u);
  begun_ = 0;
}

void TimeSlices::at(uint64_t now, Work work) {
  if (sharers_ == nullptr) return;
  waits_ = false;
  if (now - looked_ns_ >= kLookNs) look(now);
  if (!shared() && !working_) return;
  if (under_way_ && !work.working) rest_ns_ = now;
  under_way_ = work.working;
  if (working_) charge(now);
  if (work.working && !working_) begin_work(now);
  if (work.working) return note_giving(now);
  if (!working_) return;
  end_batch(now);
  const bool ours = page_->turn.load(std::memory_order_relaxed) == index_ + 1;
  if (!work.ready || !ours || now - rest_ns_ >= kThinkNs) come_to_rest(now);
}

// Others wait for what is under way, but not for ever.
void TimeSlices::note_giving(uint64_t now) {
  if (page_->turn.load(std::memory_order_relaxed) != index_ + 1) return;
  if (!is_ahead(now)) {
    seat().gives_ns.store(0);
  } else if (seat().gives_ns.load() == 0) {
    seat().gives_ns.store(now);
  }
}

// Who has done nothing for a while has no claim to what it missed, and owes nothing for what it had alone; but what it
// had before others it owes.
void TimeSlices::catch_up(uint64_t now) {
  uint64_t least = UINT64_MAX, most = 0;
  other([&](const SliceSeat& each) {
    if (!within(each.wants_ns, kFreshNs, now)) return false;
    const uint64_t used = each.used_ns.load();
    least = std::min(least, used);
    most = std::max(most, used);
    return false;
  });
  if (least > most) return;
  const uint64_t used = seat().used_ns.load(), ahead = self_.latency ? std::max(kCreditNs, slice_ns_) : slice_ns_;
  seat().used_ns.store(std::clamp(used, least - std::min(least, slice_ns_), most + ahead));
}

bool TimeSlices::is_batch_done(uint64_t now) {
  const bool contended = other([&](const SliceSeat& each) { return within(each.wants_ns, kRecentNs, now); }) != nullptr;
  if (!contended) begun_ = 0;
  if (begun_ == 0) batch_ns_ = now;
  if (begun_ < batch_) return true;
  if (now - batch_ns_ < kRestNs) return false;
  begun_ = 0;
  batch_ns_ = now;
  return true;
}

// So far that another one, who has something to do, comes first.
bool TimeSlices::is_ahead(uint64_t now) const {
  const uint64_t used = seat().used_ns.load();
  const bool first = goes_first(seat());
  return other([&](const SliceSeat& each) {
           if (!within(each.wants_ns, kFreshNs, now)) return false;
           return goes_first(each) == first ? each.used_ns.load() + slice_ns_ < used : !first;
         }) != nullptr;
}

bool TimeSlices::has_turn(uint64_t now) {
  if (page_->turn.load() != index_ + 1) return take_turn(now);
  if (!is_ahead(now)) return true;
  uint64_t ours = index_ + 1;
  if (!under_way_ && begun_ == 0 && working_) come_to_rest(now);
  if (seat().runners.load() == 0) page_->turn.compare_exchange_strong(ours, 0);
  seat().wants_ns.store(now);
  return false;
}

bool TimeSlices::take_turn(uint64_t now) {
  uint64_t holder = page_->turn.load();
  const bool first = goes_first(seat());
  if (holder != 0 && holder <= kSeats && goes_first(page_->seat[holder - 1]) >= first) {
    const SliceSeat& its = page_->seat[holder - 1];
    const uint64_t gives = its.gives_ns.load();
    const bool works = its.runners.load() != 0 && within(its.runs_ns, kSilentNs, now);
    if (works && (gives == 0 || now < gives + kSilentNs)) return false;
  }
  const uint64_t used = seat().used_ns.load();
  const bool behind = other([&](const SliceSeat& each) {
    if (!within(each.wants_ns, kFreshNs, now)) return false;
    return goes_first(each) == first ? each.used_ns.load() < used : !first;
  });
  if (behind || !page_->turn.compare_exchange_strong(holder, index_ + 1)) return false;
  seat().gives_ns.store(0);
  return true;
}

// What is under way may need this very command, and costs its job time meanwhile, so that its turn need not come.
bool TimeSlices::is_stuck(uint64_t now) {
  if (!under_way_) waits_since_ns_ = 0;
  if (under_way_ && waits_since_ns_ == 0) waits_since_ns_ = now;
  return under_way_ && now - waits_since_ns_ >= kStuckNs;
}

bool TimeSlices::may_begin(uint64_t now) {
  if (!within(seat().wants_ns, kFreshNs, now)) catch_up(now);
  seat().wants_ns.store(now, std::memory_order_relaxed);
  if (working_) {
    charge(now);
  } else if (self_.latency) {
    count_credit(now);
  }
  waits_ = (!has_turn(now) || !is_batch_done(now)) && !is_stuck(now);
  if (waits_) return false;
  waits_since_ns_ = 0;
  ++begun_;
  if (!working_) begin_work(now);
  return true;
}

}  // namespace tide
