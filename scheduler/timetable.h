#pragma once

// Work that must be done by a time, and the GPUs on which it can be: who has how many of them when, so that all of it
// is in time. Pure, without a clock; `tide simulate --mode deadlines` and the scheduler's promises (promises.h) both
// ask it.

#include <cstdint>
#include <limits>
#include <map>
#include <vector>

namespace tide::sched {

inline constexpr double kNeverS = std::numeric_limits<double>::infinity();
inline constexpr double kWorkRounding_s = 1e-6;

// How fast a job is on so many GPUs, ascending in both: counts that make it no faster are left out.
struct Rate {
  uint32_t gpus = 0;
  double per_s = 0;  // of its work
};
using Rates = std::vector<Rate>;

// The fastest on so many GPUs. Null: it needs more.
const Rate* fastest(const Rates& rates, uint32_t gpus);
inline uint32_t gpus_of(const Rate* rate) { return rate == nullptr ? 0 : rate->gpus; }

// GPUs that nobody has yet, over time.
class Profile {
 public:
  Profile(double now_s, uint32_t gpus) : free_{{now_s, gpus}} {}

  using Steps = std::map<double, uint32_t>;  // from when on; the last without an end
  const Steps& steps() const { return free_; }

  // Requires: so many are free in all of that time.
  void take(double from_s, double to_s, uint32_t gpus);
  // What is free here and there.
  void keep_least(const Profile& other);

 private:
  Steps::iterator cut(double at_s);
  Steps free_;
};

struct Piece {
  double from_s = 0, to_s = 0;
  const Rate* rate = nullptr;
};
using Timetable = std::vector<Piece>;  // when a job has GPUs, and how many

// Which numbers of GPUs are tried first.
enum class Prefer : uint8_t { kFewest, kWhatItHas, kWhatItHasThenMost, kMost };

struct Work {
  const Rates* rates = nullptr;
  double left = 0;  // in the unit of its rates
  double deadline_s = 0;
  const Rate* has = nullptr;  // now; null: no GPU
  double pause_s = 0;         // that is yet to pass before it goes on
  double not_before_s = 0;
  Prefer prefer = Prefer::kFewest;
  double margin_s = 0;  // with another number of GPUs than it has it shall be done so much earlier, if that can be
};

struct TimetableRules {
  uint32_t gpus_most = 0;  // of a job
  double change_s = 0;     // a job stands so long when it starts and whenever its GPUs change
};

// As few GPUs at a time as will do in what is free, or as many as can be (Work::prefer). False: it cannot be in time,
// and `table` is what was tried last.
bool fill(const Work& work, const Profile& free, const TimetableRules& rules, Timetable* table);
// As much as can be done until the deadline, where that is not all.
void fill_late(const Work& work, const Profile& free, const TimetableRules& rules, Timetable* table);

const Rate* rate_at(const Timetable& table, double at_s);  // null: none
void reserve(const Timetable& table, double now_s, Profile* profile);

}  // namespace tide::sched
