#include "transport/choice.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"

namespace tide {
namespace {

constexpr size_t kRounds = 9;                  // of each; the first may find a sleeper
constexpr uint64_t kTurnNs = 1'000'000;        // so long one is measured alone; where the way is long, both at once
constexpr uint64_t kClearly = 5;               // better by a fifth
constexpr uint64_t kPatienceNs = 500'000'000;  // for all; who has not answered by then is not taken
constexpr const char* kDescriptorBroke = "its descriptor broke, as when a device is removed";

}  // namespace

ChoiceCarrier::ChoiceCarrier(Side own, Carriers carriers, Clock clock)
    : own_(own), clock_(clock), begin_ns_(clock()), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  for (std::unique_ptr<Carrier>& carrier : carriers) {
    candidates_.push_back({.carrier = std::move(carrier)});
    watch(candidates_.back());
  }
}

uint64_t ChoiceCarrier::Candidate::median_ns() const {
  if (round_trips.empty()) return ~uint64_t{0};
  std::vector<uint64_t> sorted = round_trips;
  const auto middle = sorted.begin() + long(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

ChoiceCarrier::~ChoiceCarrier() {
  candidates_.clear();
  if (epoll_ >= 0) close(epoll_);
}

Outcome ChoiceCarrier::listen(const std::vector<CarrierKind>& kinds, Region region, int lifeline, std::string* data,
                              std::unique_ptr<Carrier>* carrier) {
  Carriers made;
  std::string all, whys;
  for (const CarrierKind& kind : kinds) {
    std::string one;
    std::unique_ptr<Carrier> each;
    const Outcome outcome = kind.listen(region, lifeline, &one, &each);
    if (outcome.ok()) {
      all += std::string(all.empty() ? "" : " ") + kind.name + "=" + one;
      made.push_back(std::move(each));
    } else {
      log(LogLevel::kInfo, "%s is left out: %s", kind.name, outcome.message().c_str());
      whys += std::string(whys.empty() ? "" : "; ") + outcome.message();
    }
  }
  if (made.empty()) return Outcome::fail(whys);
  *data = all;
  *carrier = std::make_unique<ChoiceCarrier>(Side::kWorker, std::move(made));
  return {};
}

Outcome ChoiceCarrier::connect(const std::vector<CarrierKind>& kinds, Region region, int lifeline,
                               const std::string& data, std::unique_ptr<Carrier>* carrier) {
  Carriers made;
  std::string whys;
  for (size_t at = 0; at < data.size();) {
    const size_t end = std::min(data.find(' ', at), data.size());
    const std::string field = data.substr(at, end - at);
    at = end + 1;
    const size_t equals = std::min(field.find('='), field.size());
    for (const CarrierKind& kind : kinds) {
      if (field.compare(0, equals, kind.name) != 0 || equals == field.size()) continue;
      std::unique_ptr<Carrier> each;
      const Outcome outcome = kind.connect(region, lifeline, field.substr(equals + 1), &each);
      if (outcome.ok()) {
        made.push_back(std::move(each));
      } else {
        log(LogLevel::kInfo, "%s is left out: %s", kind.name, outcome.message().c_str());
        whys += (whys.empty() ? "" : "; ") + outcome.message();
      }
    }
  }
  if (made.empty()) return Outcome::fail(whys.empty() ? "the worker offers no transport that is known here" : whys);
  *carrier = std::make_unique<ChoiceCarrier>(Side::kClient, std::move(made));
  return {};
}

bool ChoiceCarrier::reads_lifeline() const {
  return std::any_of(candidates_.begin(), candidates_.end(),
                     [](const Candidate& each) { return each.carrier->reads_lifeline(); });
}

// By its descriptor, since candidates change their places.
void ChoiceCarrier::watch(Candidate& candidate) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = candidate.carrier->fd();
  if (epoll_ < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, event.data.fd, &event) != 0) {
    candidate.descriptor_broke = "nothing can tell when something comes (epoll)";
  }
}

// A descriptor that is broken would end each sleep at once, and nobody would know why.
void ChoiceCarrier::look_at_descriptors() {
  epoll_event events[4];
  const int count = epoll_wait(epoll_, events, 4, 0);
  for (Candidate& each : candidates_) {
    if (count < 0 && errno != EINTR) each.descriptor_broke = kDescriptorBroke;
    for (int i = 0; i < count; ++i) {
      const bool broke = (events[i].events & (EPOLLERR | EPOLLHUP)) != 0;
      if (broke && events[i].data.fd == each.carrier->fd()) each.descriptor_broke = kDescriptorBroke;
    }
  }
}

bool ChoiceCarrier::progress(Replica* replica) {
  if (chosen_ != nullptr) return chosen_->progress(replica);
  bool moved = false;
  for (Candidate& each : candidates_) {
    moved |= each.carrier->progress(replica);
    if (own_ == Side::kWorker && each.carrier->applied() > 0) {
      choose(&each);
      return true;
    }
  }
  drop_broken();
  if (own_ == Side::kClient && !candidates_.empty()) measure();
  return moved;
}

// The last one stays: it says why there is none.
void ChoiceCarrier::drop_broken() {
  for (size_t i = 0; i < candidates_.size() && candidates_.size() > 1;) {
    const char* const failure = candidates_[i].failure();
    if (failure == nullptr) {
      ++i;
      continue;
    }
    log(LogLevel::kInfo, "%s is left out: %s", candidates_[i].carrier->name(), failure);
    epoll_ctl(epoll_, EPOLL_CTL_DEL, candidates_[i].carrier->fd(), nullptr);
    candidates_.erase(candidates_.begin() + long(i));
    turn_ = 0;
  }
}

void ChoiceCarrier::look_at_answers() {
  const uint64_t now = clock_();
  for (Candidate& each : candidates_) {
    if (each.asked_ns == 0 || each.carrier->pongs() <= each.round_trips.size()) continue;
    each.round_trips.push_back(now - each.asked_ns);
    each.asked_ns = 0;
  }
}

bool ChoiceCarrier::measured(uint64_t now) const {
  const auto has_enough = [](const Candidate& each) { return each.round_trips.size() >= kRounds; };
  return candidates_.size() == 1 || std::all_of(candidates_.begin(), candidates_.end(), has_enough) ||
         now - begin_ns_ >= kPatienceNs;
}

void ChoiceCarrier::measure() {
  look_at_answers();
  const uint64_t now = clock_();
  if (!measured(now)) return ask_next(now);
  // Differences by chance do not count against the first. Who is not connected yet is not taken at all.
  const auto worth = [&](const Candidate& each) {
    const uint64_t median = each.median_ns();
    return &each == &candidates_.front() && !each.round_trips.empty() ? median - median / kClearly : median;
  };
  Candidate* best = nullptr;
  for (Candidate& each : candidates_) {
    if (each.is_ready() && (best == nullptr || worth(each) < worth(*best))) best = &each;
  }
  if (best != nullptr) choose(best);
}

// In turns, so that both meet the same moment.
void ChoiceCarrier::ask_next(uint64_t now) {
  const auto is_ready = [](const Candidate& each) { return each.is_ready(); };
  if (!std::all_of(candidates_.begin(), candidates_.end(), is_ready)) return;
  const uint64_t asked_ns = candidates_[turn_].asked_ns;
  if (asked_ns != 0 && now - asked_ns < kTurnNs) return;
  for (size_t step = 1; step <= candidates_.size(); ++step) {
    const size_t next = (turn_ + step) % candidates_.size();
    Candidate& candidate = candidates_[next];
    if (candidate.asked_ns != 0 || candidate.round_trips.size() >= kRounds) continue;
    turn_ = next;
    candidate.asked_ns = clock_();  // sending is a part of it
    return candidate.carrier->ping();
  }
}

void ChoiceCarrier::choose(Candidate* candidate) {
  for (const Candidate& each : candidates_) {
    if (each.round_trips.empty()) {
      log(LogLevel::kInfo, "%s did not answer in %.1f s and is not measured", each.carrier->name(),
          double(clock_() - begin_ns_) / 1e9);
      continue;
    }
    log(LogLevel::kInfo, "%s: a null round trip takes %.1f us, the median of %zu", each.carrier->name(),
        double(each.median_ns()) / 1000, each.round_trips.size());
  }
  Candidate chosen = std::move(*candidate);
  for (Candidate& each : candidates_) {
    if (each.carrier == nullptr) continue;
    epoll_ctl(epoll_, EPOLL_CTL_DEL, each.carrier->fd(), nullptr);  // it may stay open
    each.carrier->give_up();
  }
  candidates_.clear();
  chosen_ = chosen.carrier.get();
  candidates_.push_back(std::move(chosen));
  log(LogLevel::kInfo, "%s is chosen", chosen_->name());
}

bool ChoiceCarrier::arm() {
  bool armed = true;
  for (Candidate& each : candidates_) armed &= each.carrier->arm();
  look_at_descriptors();
  return armed;
}

const char* ChoiceCarrier::failure() const { return candidates_.size() == 1 ? candidates_[0].failure() : nullptr; }

}  // namespace tide
