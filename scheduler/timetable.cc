#include "scheduler/timetable.h"

#include <algorithm>
#include <iterator>

namespace tide::sched {
namespace {

// `now`: until what is free changes for the first time; `most`: from then on.
struct UpTo {
  uint32_t now = 0, most = 0;  // GPUs
};

bool fill_up_to(const Work& work, const UpTo& gpus, double deadline_s, const Profile& free, const TimetableRules& rules,
                Timetable* table) {
  table->clear();
  double left = work.left, pause_s = work.pause_s;
  const Rate* has = work.has;
  const auto& steps = free.steps();
  for (auto at = steps.begin(); at != steps.end() && at->first < deadline_s; ++at) {
    const double to_s = std::next(at) == steps.end() ? kNeverS : std::next(at)->first;
    if (to_s <= work.not_before_s) continue;
    const double from_s = std::max(at->first, work.not_before_s);
    if (from_s >= deadline_s) break;
    const Rate* const rate = fastest(*work.rates, std::min(at == steps.begin() ? gpus.now : gpus.most, at->second));
    if (rate != has) pause_s = rules.change_s;
    has = rate;
    if (rate == nullptr) continue;
    const double end_s = std::min({to_s, deadline_s, from_s + pause_s + left / rate->per_s});
    left -= std::max(end_s - from_s - pause_s, 0.0) * rate->per_s;
    pause_s = std::max(pause_s - (end_s - from_s), 0.0);
    if (!table->empty() && table->back().rate == rate && table->back().to_s == from_s) {
      table->back().to_s = end_s;
    } else {
      table->push_back({from_s, end_s, rate});
    }
    if (left <= kWorkRounding_s * rate->per_s) return true;
  }
  return false;
}

}  // namespace

const Rate* fastest(const Rates& rates, uint32_t gpus) {
  const Rate* found = nullptr;
  for (const Rate& rate : rates) {
    if (rate.gpus <= gpus) found = &rate;
  }
  return found;
}

Profile::Steps::iterator Profile::cut(double at_s) {
  const auto after = free_.upper_bound(at_s);
  const auto before = std::prev(after);
  return before->first == at_s ? before : free_.insert(after, {at_s, before->second});
}

void Profile::take(double from_s, double to_s, uint32_t gpus) {
  cut(to_s);
  for (auto at = cut(from_s); at != free_.end() && at->first < to_s; ++at) at->second -= gpus;
}

void Profile::keep_least(const Profile& other) {
  for (const auto& [at_s, gpus] : other.free_) cut(std::max(at_s, free_.begin()->first));
  auto theirs = other.free_.begin();
  for (auto& [at_s, gpus] : free_) {
    while (std::next(theirs) != other.free_.end() && std::next(theirs)->first <= at_s) ++theirs;
    gpus = std::min(gpus, theirs->second);
  }
}

bool fill(const Work& work, const Profile& free, const TimetableRules& rules, Timetable* table) {
  const auto tried = [&](const Rate& most, double margin_s) {
    return most.gpus <= rules.gpus_most &&
           fill_up_to(work, {most.gpus, most.gpus}, work.deadline_s - margin_s, free, rules, table);
  };
  if (work.prefer == Prefer::kWhatItHas && work.has != nullptr && tried(*work.has, 0)) return true;
  const Rates& rates = *work.rates;
  if (work.prefer == Prefer::kWhatItHasThenMost && work.has != nullptr)
    return fill_up_to(work, {work.has->gpus, rules.gpus_most}, work.deadline_s, free, rules, table);
  if (work.prefer == Prefer::kMost)
    return !rates.empty() && tried(*fastest(rates, std::max(rules.gpus_most, rates[0].gpus)), 0);
  for (const Rate& most : rates) {
    if (tried(most, most.gpus == gpus_of(work.has) ? 0 : work.margin_s)) return true;
  }
  return work.margin_s != 0 &&
         std::any_of(rates.begin(), rates.end(), [&](const Rate& most) { return tried(most, 0); });
}

void fill_late(const Work& work, const Profile& free, const TimetableRules& rules, Timetable* table) {
  table->clear();
  (void)fill_up_to(work, {rules.gpus_most, rules.gpus_most}, work.deadline_s, free, rules, table);
}

const Rate* rate_at(const Timetable& table, double at_s) {
  for (const Piece& piece : table) {
    if (piece.from_s <= at_s && at_s < piece.to_s) return piece.rate;
  }
  return nullptr;
}

void reserve(const Timetable& table, double now_s, Profile* profile) {
  for (const Piece& piece : table) {
    if (piece.to_s > now_s) profile->take(std::max(piece.from_s, now_s), piece.to_s, piece.rate->gpus);
  }
}

}  // namespace tide::sched
