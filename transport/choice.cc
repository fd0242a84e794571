#include "transport/choice.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"

namespace tide {
namespace {

constexpr uint64_t kRounds = 16;               // of each, where the network is fast
constexpr uint64_t kRoundsMin = 2;             // where it is slow; the first may find a sleeper
constexpr uint64_t kMeasureNs = 5'000'000;     // longer only for kRoundsMin
constexpr uint64_t kClearly = 5;               // better by a fifth
constexpr uint64_t kPatienceNs = 500'000'000;  // who has not answered by then is not taken

}  // namespace

ChoiceCarrier::ChoiceCarrier(Side own, Carriers carriers, Clock clock)
    : own_(own), clock_(clock), begin_ns_(clock()), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  for (std::unique_ptr<Carrier>& carrier : carriers) {
    epoll_event event{};
    event.events = EPOLLIN;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, carrier->fd(), &event);
    candidates_.push_back({.carrier = std::move(carrier)});
  }
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
    Carrier& carrier = *candidates_[i].carrier;
    if (carrier.failure() == nullptr) {
      ++i;
      continue;
    }
    log(LogLevel::kInfo, "%s is left out: %s", carrier.name(), carrier.failure());
    candidates_.erase(candidates_.begin() + long(i));
    turn_ = 0;
  }
}

void ChoiceCarrier::look_at_answers() {
  const uint64_t now = clock_();
  for (Candidate& each : candidates_) {
    if (each.asked_ns == 0 || each.carrier->pongs() <= each.answers) continue;
    ++each.answers;
    each.best_ns = std::min(each.best_ns, now - each.asked_ns);
    each.asked_ns = 0;
  }
}

bool ChoiceCarrier::measured(uint64_t now) const {
  const auto fewest = std::min_element(candidates_.begin(), candidates_.end(),
                                       [](const auto& a, const auto& b) { return a.answers < b.answers; });
  if (fewest->answers >= kRounds) return true;
  if (fewest->answers >= kRoundsMin && now - measuring_ns_ >= kMeasureNs) return true;
  return now - begin_ns_ >= kPatienceNs;
}

// In turns, so that both meet the same moment.
void ChoiceCarrier::measure() {
  look_at_answers();
  const auto ready = [](Candidate& each) { return each.asked_ns != 0 || each.carrier->may_ping(); };
  const bool all_ready = std::all_of(candidates_.begin(), candidates_.end(), ready);
  const uint64_t now = clock_();
  if (!all_ready && now - begin_ns_ < kPatienceNs) return;
  if (measuring_ns_ == 0) measuring_ns_ = now;
  if (candidates_.size() == 1 || measured(now)) {
    // Differences by chance do not count against the first.
    const auto worth = [&](Candidate& each) {
      if (!ready(each) || each.answers == 0) return ~uint64_t{0};
      return &each == &candidates_.front() ? each.best_ns - each.best_ns / kClearly : each.best_ns;
    };
    auto best = candidates_.begin();
    for (auto each = candidates_.begin(); each != candidates_.end(); ++each) {
      if (worth(*each) < worth(*best) || !ready(*best)) best = each;
    }
    if (ready(*best)) choose(&*best);
    return;
  }
  if (candidates_[turn_].asked_ns != 0) return;
  turn_ = (turn_ + 1) % candidates_.size();
  candidates_[turn_].asked_ns = clock_();  // sending is a part of it
  candidates_[turn_].carrier->ping();
}

void ChoiceCarrier::choose(Candidate* candidate) {
  for (const Candidate& each : candidates_) {
    if (each.answers == 0) {
      log(LogLevel::kInfo, "%s did not answer in %.1f s and is not measured", each.carrier->name(),
          double(clock_() - begin_ns_) / 1e9);
      continue;
    }
    log(LogLevel::kInfo, "%s: a null round trip takes %.1f us", each.carrier->name(), double(each.best_ns) / 1000);
  }
  Candidate chosen = std::move(*candidate);
  for (Candidate& each : candidates_) {
    if (each.carrier != nullptr) each.carrier->give_up();
  }
  candidates_.clear();
  chosen_ = chosen.carrier.get();
  candidates_.push_back(std::move(chosen));
  log(LogLevel::kInfo, "%s is chosen", chosen_->name());
}

bool ChoiceCarrier::arm() {
  bool armed = true;
  for (Candidate& each : candidates_) armed &= each.carrier->arm();
  return armed;
}

const char* ChoiceCarrier::failure() const {
  return candidates_.size() == 1 ? candidates_[0].carrier->failure() : nullptr;
}

}  // namespace tide
