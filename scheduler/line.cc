#include "scheduler/line.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "scheduler/cost.h"
#include "scheduler/promises.h"
#include "scheduler/rank.h"
#include "scheduler/room.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

// ---- what follows from what was granted

class Settling {
 public:
  Settling(const std::vector<uint32_t>& by_place, const Supply& supply, const std::vector<Candidate>& candidates,
           std::vector<InLine>* jobs)
      : by_place_(by_place), supply_(supply), candidates_(candidates), jobs_(*jobs) {}

  void run() {
    int64_t missing = -supply_.free - supply_.leaving;
    for (const uint32_t each : by_place_) {
      InLine& job = jobs_[each];
      job = {.held = job.held, .due = job.held};
      if (job.held == 0 && candidates_[each].granted == 0) continue;  // most, where many wait
      line_.push_back(each);
      missing += need(each);
    }
    available_ = supply_.free;
    shrink(&missing);
    suspend(&missing);
    give();
    name_takers();
  }

 private:
  // GPUs that it was granted and does not have.
  int64_t need(uint32_t each) const {
    return std::max<int64_t>(int64_t(candidates_[each].granted) - jobs_[each].held, 0);
  }

  void shrink(int64_t* missing) {
    for (auto next = line_.rbegin(); next != line_.rend() && *missing > 0; ++next) {
      InLine& job = jobs_[*next];
      const uint32_t granted = candidates_[*next].granted;
      if (granted == 0 || granted >= job.held) continue;
      *missing -= job.held - granted;
      available_ += job.held - granted;
      job.due = granted;
    }
  }

  void suspend(int64_t* missing) {
    for (auto next = line_.rbegin(); next != line_.rend() && *missing > 0; ++next) {
      InLine& job = jobs_[*next];
      if (job.held == 0 || candidates_[*next].granted != 0) continue;
      *missing -= job.held;
      givers_.push_back(*next);
    }
    for (auto giver = givers_.rbegin(); giver != givers_.rend(); ++giver) {  // who is not needed after all stays
      if (*missing + int64_t(jobs_[*giver].held) > 0) continue;
      *missing += jobs_[*giver].held;
      *giver = kNobody;
    }
    std::erase(givers_, kNobody);
  }

  // In line, as far as it goes now; others wait for those who leave.
  void give() {
    for (const uint32_t each : line_) {
      InLine& job = jobs_[each];
      const int64_t needs = need(each);
      if (needs == 0) continue;
      if (needs <= available_) {
        available_ -= needs;
        job.due = candidates_[each].granted;
        continue;
      }
      takers_.push_back(each);
      if (job.held == 0) job.due = candidates_[each].granted;
      if (job.held != 0) job.more = uint32_t(needs);
    }
  }

  void name_takers() {
    int64_t coming = available_ + supply_.leaving;
    size_t taker = 0;
    for (const uint32_t giver : givers_) {
      for (; taker + 1 < takers_.size() && coming >= need(takers_[taker]); ++taker) coming -= need(takers_[taker]);
      jobs_[giver].yields = true;
      jobs_[giver].due = 0;
      if (!takers_.empty()) jobs_[giver].yields_to = takers_[taker];
      coming += jobs_[giver].held;
    }
  }

  const std::vector<uint32_t>& by_place_;
  const Supply supply_;
  const std::vector<Candidate>& candidates_;
  std::vector<InLine>& jobs_;
  int64_t available_ = 0;
  std::vector<uint32_t> line_;  // who has or gets any
  std::vector<uint32_t> givers_, takers_;
};

// ---- who is in line

constexpr size_t kNoGpuHere = SIZE_MAX;

class LiningUp {
 public:
  explicit LiningUp(State* state) : state_(*state), gpus_(state->gpus.size()) {
    for (size_t g = 0; g < gpus_.size(); ++g) {
      const GpuView& view = state_.gpus[g];
      numbers_[view.id] = g;
      if (view.online) servers_.insert(view.id.server);
      gpus_[g].usable = view.online && view.healthy;
      if (gpus_[g].usable) memory_least_ = std::min(memory_least_, view.memory_bytes);
      supply_.free += gpus_[g].usable ? 1 : 0;
    }
  }

  void run() {
    held_.resize(state_.jobs.size());
    for (size_t i = 0; i < state_.jobs.size(); ++i) take_in(i);
    fill_rooms();
    std::vector<uint32_t> oldest(who_.size()), by_place(who_.size());
    for (uint32_t i = 0; i < who_.size(); ++i) oldest[i] = by_place[i] = i;
    std::sort(oldest.begin(), oldest.end(), [&](uint32_t a, uint32_t b) {
      return std::tuple(-job_of(a).priority, first_of(a)) < std::tuple(-job_of(b).priority, first_of(b));
    });
    std::sort(by_place.begin(), by_place.end(), [&](uint32_t a, uint32_t b) { return place(a) < place(b); });
    cap(by_place);
    stand_in_line({oldest, by_place}, supply_, {}, &candidates_, &jobs_);
    for (uint32_t i = 0; i < who_.size(); ++i) tell(i);
  }

 private:
  struct Gpu {
    bool usable = false, shared = false, claimed = false;
    uint32_t holder = kNobody;  // in line
    bool stays = false;         // with who has it
  };

  size_t first_of(uint32_t each) const { return who_[each].front(); }
  const JobView& job_of(uint32_t each) const { return state_.jobs[first_of(each)]; }
  std::tuple<int64_t, int64_t, size_t> place(uint32_t each) const {
    return {line_rank(job_of(each)), job_of(each).place, first_of(each)};
  }

  // Of it nothing may be decided: its server does not answer.
  bool is_stuck(const JobView& job) const {
    return std::any_of(job.places.begin(), job.places.end(), [&](const GpuId& at) {
      if (at.none()) return false;
      if (at.parked()) return servers_.count(at.server) == 0;
      const auto found = numbers_.find(at);
      return found == numbers_.end() || !state_.gpus[found->second].online;
    });
  }

  void find_held(size_t index) {
    const JobView& job = state_.jobs[index];
    const auto hold = [&](const GpuId& at) {
      const auto found = at.on_gpu() ? numbers_.find(at) : numbers_.end();
      if (found == numbers_.end() || !gpus_[found->second].usable) return;
      if (job.suspended || may_use(job, state_.gpus[found->second])) held_[index].insert(found->second);
    };
    for (const GpuId& at : job.places) hold(at);
    for (const GpuId& at : job.keeps) hold(at);
  }

  void take_in(size_t index) {
    JobView& job = state_.jobs[index];
    job.in_line = false;
    const bool stuck = is_stuck(job);
    if (job.running) find_held(index);
    if (job.is_partial()) return take_part(index, stuck);
    const std::set<size_t>& held = held_[index];
    supply_.free -= int64_t(held.size());
    for (const size_t gpu : held) gpus_[gpu].stays = true;
    if (job.due_gpus != 0) {  // it was promised to it
      supply_.free -= std::max<int64_t>(int64_t(job.due_gpus + job.due_more) - int64_t(held.size()), 0);
      promised_ = job.id;
    } else if (job.running && (job.suspended || !job.yields_to.empty())) {
      supply_.leaving += int64_t(held.size());
      for (const size_t gpu : held) gpus_[gpu].stays = false;
    } else if (!stuck && !job.suspended && job.kept_out_for.empty()) {
      join_line(index);
    }
  }

  void join_line(size_t index) {
    JobView& job = state_.jobs[index];
    const uint32_t held = uint32_t(held_[index].size());
    const Counts counts = counts_of(unspared(job), memory_needs(job), held);
    Candidate candidate{
        .vgpus = job.vgpus, .least = counts.least, .most = counts.most, .powers_of_two = job.powers_of_two};
    if (job.running && held == 0) candidate.keeps = counts.least;  // its GPUs are sick
    const bool fixed = is_fixed(job);
    if (job.running && fixed) candidate.keeps = std::min(held, counts.most);
    for (const size_t gpu : held_[index]) {
      gpus_[gpu].holder = uint32_t(who_.size());
      gpus_[gpu].stays = fixed;
    }
    add({index}, candidate, held);
  }

  void add(std::vector<size_t> members, const Candidate& candidate, uint32_t held) {
    for (const size_t index : members) state_.jobs[index].in_line = true;
    who_.push_back(std::move(members));
    candidates_.push_back(candidate);
    jobs_.push_back({.held = held});
  }

  static JobView unspared(const JobView& job) {
    JobView like;
    like.vgpus = job.vgpus;
    like.min_gpus = job.min_gpus;
    like.target = job.target;
    like.powers_of_two = job.powers_of_two;
    return like;
  }

  uint32_t memory_needs(const JobView& job) {
    if (job.require.any() || job.barred != nullptr) return gpus_for_memory(state_, job);
    if (job.memory_bytes == 0) return 1;
    const auto [found, fresh] = for_memory_.try_emplace({job.memory_bytes, job.memory_given, job.vgpus}, 0);
    if (fresh) found->second = gpus_for_memory(state_, job);
    return found->second;
  }

  // Nothing is taken from it for others now.
  bool is_fixed(const JobView& job) const {
    return job.spared || !job.preemptible || job.pinned || job.job_class == JobClass::kInference ||
           is_nearly_done(job) || is_promised(job, state_.now_ms);
  }

  // ---- parts of GPUs

  void take_part(size_t index, bool stuck) {
    const JobView& job = state_.jobs[index];
    for (const size_t gpu : held_[index]) {
      if (!std::exchange(gpus_[gpu].shared, true)) {
        --supply_.free;
        rooms_.push_back({Room(state_.gpus[gpu].id, state_.gpus[gpu].memory_bytes), gpu, kNobody});
      }
      const auto room = std::find_if(rooms_.begin(), rooms_.end(), [&](const Place& each) { return each.gpu == gpu; });
      room->room.take(job.portion());
    }
    if (job.running && held_[index].empty() && !stuck && !job.suspended) --supply_.free;
    if (!job.running && !job.suspended && !stuck && job.kept_out_for.empty() && job.due_gpus == 0)
      parts_.push_back(index);
  }

  // Those that find no part of a GPU wait together for a whole one.
  void fill_rooms() {
    std::sort(parts_.begin(), parts_.end(), [&](size_t a, size_t b) {
      const JobView &x = state_.jobs[a], &y = state_.jobs[b];
      return std::tuple(line_rank(x), x.place, a) < std::tuple(line_rank(y), y.place, b);
    });
    for (const size_t index : parts_) {
      JobView& job = state_.jobs[index];
      const auto fits = [&](const Place& each) {
        if (!each.room.fits(job.portion())) return false;
        return each.gpu == kNoGpuHere ? !is_choosy(job) && !is_choosy(job_of(each.line)) : may_begin(job, each.gpu);
      };
      auto room = std::find_if(rooms_.begin(), rooms_.end(), fits);
      if (room == rooms_.end()) {
        rooms_.push_back({Room({}, memory_least_), kNoGpuHere, uint32_t(who_.size())});
        room = std::prev(rooms_.end());
        add({index}, {.vgpus = 1}, 0);
      } else if (room->gpu == kNoGpuHere) {
        who_[room->line].push_back(index);
        job.in_line = true;
      } else {
        job.in_line = true;
        job.due_gpus = 1;
      }
      room->room.take(job.portion());
    }
  }

  // ---- who may have some GPUs only

  bool may_begin(const JobView& job, size_t gpu) const {
    const GpuView& view = state_.gpus[gpu];
    return capacity(job, view) > 0 && (job.running || job.failed_on.count(view.id.server) == 0);
  }

  bool is_choosy(const JobView& job) const { return job.picky() || job.memory_bytes > memory_least_; }

  // They are granted no more than there are of these, less what those before them have or get of them, as far as that
  // cannot go elsewhere; so whoever is stopped for one of them makes it start.
  void cap(const std::vector<uint32_t>& by_place) {
    std::vector<size_t> position(who_.size());
    for (size_t i = 0; i < by_place.size(); ++i) position[by_place[i]] = i;
    for (const uint32_t each : by_place) {
      if (!is_choosy(job_of(each))) continue;
      Candidate& candidate = candidates_[each];
      std::vector<size_t> open = open_to(each, position);
      const size_t count = std::min<size_t>(open.size(), std::min(candidate.most, candidate.vgpus));
      for (size_t i = 0; i < count; ++i) gpus_[open[i]].claimed = true;
      candidate.most = std::max(uint32_t(count), candidate.keeps);
    }
  }

  // Its own first, then those that nobody has, then those of who is last in line. Together, if it requires that.
  std::vector<size_t> open_to(uint32_t each, const std::vector<size_t>& position) const {
    const JobView& job = job_of(each);
    std::map<std::string, std::vector<size_t>> groups;
    const std::vector<size_t>* most = nullptr;
    for (size_t g = 0; g < gpus_.size(); ++g) {
      const Gpu& gpu = gpus_[g];
      if (!gpu.usable || gpu.shared || gpu.claimed || !may_begin(job, g)) continue;
      const bool own = gpu.holder == each;
      if (!own && gpu.stays) continue;
      if (!own && gpu.holder != kNobody && position[gpu.holder] < position[each]) continue;
      groups[group_of(job, state_.gpus[g])].push_back(g);
    }
    if (!job.running && !job.is_partial()) add_movable(each, position, &groups);
    const auto own = [&](const std::vector<size_t>& group) {
      return std::count_if(group.begin(), group.end(), [&](size_t g) { return gpus_[g].holder == each; });
    };
    for (const auto& [name, group] : groups) {
      if (most == nullptr || std::pair(own(group), group.size()) > std::pair(own(*most), most->size())) most = &group;
    }
    if (most == nullptr) return {};
    std::vector<size_t> open = *most;
    std::stable_sort(open.begin(), open.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
    std::stable_partition(open.begin(), open.end(), [&](size_t g) { return gpus_[g].holder == each; });
    return open;
  }
  // Where it could not start else: those of jobs before it that can lie on any others, if there are as many elsewhere.
  void add_movable(uint32_t each, const std::vector<size_t>& position,
                   std::map<std::string, std::vector<size_t>>* groups) const {
    const JobView& job = job_of(each);
    std::map<std::string, std::vector<size_t>> movable;
    std::map<std::string, size_t> elsewhere;  // open to those that move: in all, less those of the group
    size_t open = 0;
    for (size_t g = 0; g < gpus_.size(); ++g) {
      const Gpu& gpu = gpus_[g];
      if (!gpu.usable || gpu.shared || gpu.claimed || gpu.stays) continue;
      const bool behind = gpu.holder == kNobody || position[gpu.holder] > position[each];
      const bool may = may_begin(job, g);
      const std::string name = may ? group_of(job, state_.gpus[g]) : "";
      if (behind) ++open;
      if (behind && may) ++elsewhere[name];
      if (!behind && may && !is_choosy(job_of(gpu.holder))) movable[name].push_back(g);
    }
    for (const auto& [name, gpus] : movable) {
      std::vector<size_t>& group = (*groups)[name];
      const size_t least = candidates_[each].least, room = open - elsewhere[name];
      if (group.size() >= least || group.size() + std::min(gpus.size(), room) < least) continue;
      group.insert(group.end(), gpus.begin(), gpus.begin() + long(least - group.size()));
    }
  }
  bool key(size_t gpu) const { return gpus_[gpu].holder != kNobody; }

  // ---- what that means for each

  void tell(uint32_t each) {
    const InLine& is = jobs_[each];
    for (const size_t index : who_[each]) {
      JobView& job = state_.jobs[index];
      job.due_gpus = job.is_partial() ? std::min(is.due, 1u) : is.due;
      job.due_more = is.more;
      if (is.yields) job.yields_to = is.yields_to == kNobody ? promised_ : job_of(is.yields_to).id;
    }
  }

  State& state_;
  std::vector<Gpu> gpus_;
  std::map<GpuId, size_t> numbers_;
  std::set<std::string> servers_;  // that answer
  uint64_t memory_least_ = UINT64_MAX;
  std::map<std::tuple<uint64_t, bool, uint32_t>, uint32_t> for_memory_;
  std::vector<std::set<size_t>> held_;  // usable GPUs, by job
  std::string promised_;                // a job that is due by its deadline
  Supply supply_;
  struct Place {
    Room room;
    size_t gpu = kNoGpuHere;  // else one that is not chosen yet, for
    uint32_t line = kNobody;
  };
  std::vector<Place> rooms_;
  std::vector<size_t> parts_;             // jobs that wait for one
  std::vector<std::vector<size_t>> who_;  // in line: a job, or several that share a GPU
  std::vector<Candidate> candidates_;
  std::vector<InLine> jobs_;
};

}  // namespace

void stand_in_line(const Lines& lines, const Supply& supply, const OrderRules& rules,
                   std::vector<Candidate>* candidates, std::vector<InLine>* jobs) {
  int64_t gpus = supply.free + supply.leaving;
  for (const uint32_t each : lines.by_place) gpus += (*jobs)[each].held;
  const uint32_t shared = uint32_t(std::max<int64_t>(gpus, 0));
  share_out(lines, shared, uint32_t(rules.oldest_part * shared), candidates);
  Settling(lines.by_place, supply, *candidates, jobs).run();
}

void keep_line(State* state) { LiningUp(state).run(); }

}  // namespace tide::sched
