#include "server/time_slices.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/descriptors.h"

namespace tide {
namespace {

constexpr uint32_t kSeats = 128;  // parts are a hundredth at least; some jobs come while others go
constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kSliceNs = 5 * kMs;    // of a whole GPU: that far one may be behind another
constexpr uint64_t kBatchNs = 1 * kMs;    // what a batch should take
constexpr uint64_t kFreshNs = 30 * kMs;   // so long it counts that a worker had something to do
constexpr uint64_t kThinkNs = 1 * kMs;    // and when it has nothing more: its program may be about to go on
constexpr uint64_t kSilentNs = 20 * kMs;  // of a worker with work under way; then it is not waited for
constexpr uint64_t kRestNs = 5 * kMs;     // for a batch to come to rest, which may need a command of the next
constexpr uint64_t kStuckNs = 40 * kMs;   // one command is begun then, whosever turn it is
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

}  // namespace

struct alignas(64) SliceSeat {
  Word job{0};                       // 0: free
  Word used_ns{0};                   // divided by its part
  Word seen_ns{0};                   // a worker of it was here
  Word wants_ns{0};                  // had something to do
  Word runs_ns{0};                   // had work under way
  Word gives_ns{0};                  // since when it begins nothing because it shall give the turn away; 0: it need not
  std::atomic<uint32_t> runners{0};  // workers with work under way
  // Of the workers that live, each counts itself once in a period: its number, and how many in it and in the one
  // before.
  std::atomic<uint32_t> workers{0};
};

// Zeros are a page where nobody sits.
struct SlicePage {
  std::atomic<uint32_t> sharers{0};  // jobs with a seat, when it was looked last
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
    if (i != index_ && each.job.load(std::memory_order_relaxed) != 0 && is(each)) return &each;
  }
  return nullptr;
}

Outcome TimeSlices::start(const std::string& path, uint64_t job, uint32_t part, uint64_t now) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return errno_failure("cannot open " + path);
  void* page = ftruncate(fd, sizeof(SlicePage)) != 0
                   ? MAP_FAILED
                   : mmap(nullptr, sizeof(SlicePage), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const Outcome failed = page == MAP_FAILED ? errno_failure("cannot map " + path) : Outcome();
  close(fd);
  if (!failed.ok()) return failed;
  page_ = static_cast<SlicePage*>(page);
  job_ = job;
  part_ = part;
  sit(now);
  if (seat().job.load() != job_) return Outcome::fail("more jobs share this GPU than " + path + " has seats");
  look(now);
  sharers_ = &page_->sharers;
  return {};
}

// Workers of the job that have looked in this period of time or the one before. `counts`: and this one, now.
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
  for (uint32_t runners = seat().runners.load(); runners > alive;) {
    if (seat().runners.compare_exchange_weak(runners, alive)) return;
  }
}

// At the job's seat, or a free one. Two workers of a job that come at once may take one each: the next look mends it.
void TimeSlices::sit(uint64_t now) {
  working_ = false;
  counted_period_ = 0;
  for (uint32_t i = 0; i < kSeats; ++i) {
    if (page_->seat[i].job.load() == job_) return void(index_ = i);
  }
  for (uint32_t i = 0; i < kSeats; ++i) {
    SliceSeat& free = page_->seat[i];
    uint64_t nobody = 0;
    if (!free.job.compare_exchange_strong(nobody, job_)) continue;
    for (Word* word : {&free.used_ns, &free.wants_ns, &free.runs_ns, &free.gives_ns}) word->store(0);
    free.runners.store(0);
    free.workers.store(0);
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
    if (page_->seat[i].job.load() == job_) first = i;
  }
  if (first != index_) {
    if (working_) come_to_rest(now);
    seat().job.store(0);
  }
  if (first != index_ || seat().job.load() != job_) sit(now);
  seat().seen_ns.store(now);
  forget_dead(now);
  if (!within(seat().runs_ns, kRecentNs, now)) seat().runners.store(working_ ? 1 : 0);  // of workers that died
  uint32_t sharers = 0;
  for (SliceSeat& each : page_->seat) {
    uint64_t job = each.job.load();
    if (job != 0 && job != job_ && !within(each.seen_ns, kLeftNs, now)) each.job.compare_exchange_strong(job, 0);
    sharers += each.job.load() != 0 ? 1 : 0;
  }
  page_->sharers.store(sharers);
}

void TimeSlices::charge(uint64_t now) {
  // Who was stopped, or in one long call, is not behind by what others had meanwhile.
  if (!within(seat().wants_ns, kFreshNs, now)) catch_up(now);
  // What takes longer is the driver's call, or we were stopped.
  const uint64_t ns = std::min(now - std::min(charged_ns_, now), kSilentNs);
  charged_ns_ = now;
  const uint64_t runners = std::max(1u, seat().runners.load(std::memory_order_relaxed));
  seat().used_ns.fetch_add(ns * kWhole / part_ / runners, std::memory_order_relaxed);
  seat().runs_ns.store(now, std::memory_order_relaxed);
  seat().wants_ns.store(now, std::memory_order_relaxed);
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
  seat().wants_ns.store(now - std::min(now, kFreshNs - kThinkNs));
  uint64_t ours = index_ + 1;
  page_->turn.compare_exchange_strong(ours, 0);
}

void TimeSlices::end_batch(uint64_t now) {
  const uint64_t took = now - std::min(batch_ns_, now);
  const bool full = begun_ >= batch_;
  if (full && took < kBatchNs / 2) batch_ = std::min(batch_ * 2, kBatchMost);
  if (full && took > kBatchNs * 2) batch_ = std::max(batch_ / 2, 1u);
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
  if (!work.ready || now - rest_ns_ >= kThinkNs) come_to_rest(now);
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

// Who has done nothing for a while has no claim to what it missed, and owes nothing for what it had alone.
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
  const uint64_t used = seat().used_ns.load();
  seat().used_ns.store(std::clamp(used, least - std::min(least, kSliceNs), most + kSliceNs));
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
  return other([&](const SliceSeat& each) {
           return within(each.wants_ns, kFreshNs, now) && each.used_ns.load() + kSliceNs < used;
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
  if (holder != 0 && holder <= kSeats) {
    const SliceSeat& its = page_->seat[holder - 1];
    const uint64_t gives = its.gives_ns.load();
    const bool works = its.runners.load() != 0 && within(its.runs_ns, kSilentNs, now);
    if (works && (gives == 0 || now < gives + kSilentNs)) return false;
  }
  const uint64_t used = seat().used_ns.load();
  const bool behind =
      other([&](const SliceSeat& each) { return within(each.wants_ns, kFreshNs, now) && each.used_ns.load() < used; });
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
  if (working_) charge(now);
  waits_ = (!has_turn(now) || !is_batch_done(now)) && !is_stuck(now);
  if (waits_) return false;
  waits_since_ns_ = 0;
  ++begun_;
  if (!working_) begin_work(now);
  return true;
}

}  // namespace tide
