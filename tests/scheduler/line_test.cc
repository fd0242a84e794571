// Sharing GPUs out in line where jobs run already: who shrinks, who is stopped and for whom.

#include "scheduler/line.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/log.h"
#include "scheduler/promises.h"
#include "scheduler/rank.h"
#include "tests/scheduler/dice.h"
#include "tests/scheduler/policy_text.h"

namespace tide::sched {
namespace {

// In line as they are told.
State lined_up(const std::string& text) {
  State state = parse_state(text);
  for (size_t i = 0; i < state.jobs.size(); ++i) {
    state.jobs[i].place = int64_t(i);
    state.jobs[i].places.resize(state.jobs[i].vgpus);
  }
  keep_line(&state);
  return state;
}

// "S 2; L 2+1 yields to S": what is due of each, and what is more.
std::string text_of(const State& state) {
  std::string text;
  for (const JobView& job : state.jobs) {
    text += format("%s%s %u", text.empty() ? "" : "; ", job.id.c_str(), job.due_gpus);
    if (job.due_more != 0) text += format("+%u", job.due_more);
    if (!job.yields_to.empty()) text += " yields to " + job.yields_to;
    if (!job.in_line) text += " aside";
  }
  return text;
}

TEST(Line, says_who_shrinks_who_stops_and_for_whom) {
  const std::pair<const char*, const char*> kRows[] = {
      {"4 gpus; S n2; L n4 on 0,1,2,3", "S 2; L 2"},
      {"4 gpus; S n2; L n4 min4 on 0,1,2,3", "S 2; L 0 yields to S"},
      // Who grows has what it has until the other one has left.
      {"4 gpus; A n4 on 0,1,0,1; B n2 min2 on 2,3", "A 2+2; B 0 yields to A"},
      {"4 gpus; A n4 on 0,1,0,1; B n2 on 2,3", "A 2+2; B 0 yields to A"},
      {"4 gpus; A n4 on 0,1,0,1; B n1", "A 4; B 0"},
      // The last first, and no more than are needed.
      {"4 gpus; S n2; A n1 on 0; B n1 on 1; C n1 on 2; D n1 on 3", "S 2; A 1; B 1; C 0 yields to S; D 0 yields to S"},
      {"4 gpus; S n2; T n1; A n1 on 0; B n1 on 1; C n1 on 2; D n1 on 3",
       "S 2; T 1; A 1; B 0 yields to T; C 0 yields to S; D 0 yields to S"},
      // Nobody can use what it would leave.
      {"3 gpus; A n2 on 0,1; B n2 min2; C n1 on 2", "A 2; B 0; C 1"},
      // Who leaves already is enough.
      {"2 gpus; S n1; A n1 on 0; B n1 suspended on 1", "S 1; A 1; B 0 aside"},
      {"2 gpus; S n1; T n1; A n1 on 0; B n1 suspended on 1", "S 1; T 1; A 0 yields to T; B 0 aside"},
      // Nothing is taken from these, and they are given more.
      {"2 gpus; S n2 min2; L n2 spared on 0,1", "S 0; L 2"},
      {"3 gpus; S n2 min2; L n3 pinned on 0,1,0", "S 0; L 3"},
      {"2 gpus; S n2 min2; L n2 inference on 0,1", "S 0; L 2"},
      {"2 gpus; S n2 min2; L n2 ran95 lasts100 on 0,1", "S 0; L 2"},
      // Parts of GPUs are counted by GPUs, and nobody with one is stopped.
      {"2 gpus; S n2; P part500 on 0", "S 1; P 0 aside"},
      {"2 gpus; P part500; Q part400; L n2 on 0,1", "P 1; Q 1; L 1"},
      {"2 gpus; S n2 min2; P part500; L n2 on 0,1", "S 2; P 0; L 0 yields to S"},
      {"2 gpus; L n2 on 1,1; R part300 on 0; P part500; Q part400", "L 1; R 0 aside; P 1; Q 0"},
      // Its minimum, though fewer would be as fast.
      {"7 gpus; A n8 min5; B n2", "A 5; B 2"},
      // Not on GPUs that do not count.
      {"3 gpus sick2; S n2; L n2 on 0,1", "S 2; L 0 yields to S"},
      {"1+1 gpus off1; S n1; L n1 on 1", "S 1; L 0 aside"},
  };
  for (const auto& [pool, answer] : kRows) EXPECT_EQ(text_of(lined_up(pool)), answer) << pool;
}

TEST(Line, who_requires_some_gpus_is_granted_no_more_than_there_are_of_these) {
  const std::pair<const char*, const char*> kRows[] = {
      {"2+2 gpus s0:H200; S n2 needs:H200; A n2 on 0,1; B n2 on 2,3", "S 2; A 2; B 0 yields to S"},
      {"2+2 gpus s0:H200; A n2 min2 needs:H200 on 0,1; S n2 min2 needs:H200; B n2 on 2,3", "A 2; S 0; B 2"},
      {"2+2 gpus s0:H200; A n1 needs:H200 on 0; S n2 needs:H200; B n2 on 2,3", "A 1; S 1; B 2"},
      {"2+2 gpus s0:H200; S n1 needs:H200; A n2 pinned on 0,1", "S 0; A 2"},
      {"2+2 gpus; S n4 needs:server; A n1 on 0", "S 2; A 1"},
      {"2 gpus small1; S n1 mem12; A n1 on 0", "S 1; A 1"},
  };
  for (const auto& [pool, answer] : kRows) EXPECT_EQ(text_of(lined_up(pool)), answer) << pool;
}

TEST(Line, what_was_promised_comes_before) {
  State state = parse_state("3 gpus; D n1 lasts100 due105; S n1 on 0; L n2 on 1,2");
  for (size_t i = 0; i < state.jobs.size(); ++i) state.jobs[i].place = int64_t(i);
  state.jobs[0].places.resize(1);
  state.now_ms = kBeginMs;
  keep_promises(&state);
  keep_line(&state);
  EXPECT_EQ(text_of(state), "D 1 aside; S 1; L 1");
}

// What was granted, whoever has what: pools by chance.
class Chance {
 public:
  explicit Chance(uint64_t seed) : dice_(seed) {
    const uint32_t gpus = 1 + dice_.roll(12);
    state_ = parse_state(std::to_string(gpus) + " gpus");
    std::vector<GpuId> free;
    for (const GpuView& gpu : state_.gpus) free.push_back(gpu.id);
    for (uint32_t i = 0; i < 8; ++i) {
      JobView job{.id = "j" + std::to_string(i), .vgpus = 1 + dice_.roll(8), .places = {}};
      job.min_gpus = 1 + dice_.roll(job.vgpus);
      job.place = dice_.roll(100);
      job.priority = int32_t(dice_.roll(2));
      job.powers_of_two = dice_.roll(4) == 0;
      job.places.resize(job.vgpus);
      uint32_t held = dice_.roll(2) == 0 ? 0 : std::min<uint32_t>(job.vgpus, uint32_t(free.size()));
      if (held != 0) held = rounded_down(job, held);
      job.running = held >= rounded_up(job, job.min_gpus);
      for (uint32_t v = 0; job.running && v < job.vgpus; ++v) job.places[v] = free[free.size() - 1 - v % held];
      if (job.running) free.resize(free.size() - held);
      state_.jobs.push_back(job);
    }
  }

  void check() {
    keep_line(&state_);
    const State once = state_;
    keep_promises(&state_);
    keep_line(&state_);
    ASSERT_EQ(state_, once);
    std::map<std::string, const JobView*> by_id;
    for (const JobView& job : state_.jobs) by_id[job.id] = &job;
    size_t has = 0, will_have = 0;
    for (const JobView& job : state_.jobs) {
      ASSERT_TRUE(job.in_line);
      const size_t held = std::set<GpuId>(job.places.begin(), job.places.end()).size();
      has += job.running ? (job.yields_to.empty() ? job.due_gpus : held) : 0;
      will_have += job.due_gpus + job.due_more;
      const uint32_t all = job.due_gpus + job.due_more;
      ASSERT_TRUE(all == 0 || (all >= job.min_gpus && may_have(job, all))) << job.id;
      ASSERT_TRUE(!job.running || (all == 0) == !job.yields_to.empty()) << job.id << " runs, and is told nothing";
      if (job.yields_to.empty()) continue;
      const JobView& taker = *by_id.at(job.yields_to);
      ASSERT_LT(std::tuple(line_rank(taker), taker.place, taker.id), std::tuple(line_rank(job), job.place, job.id))
          << text_of(state_);
      ASSERT_TRUE(!taker.running || taker.due_more != 0) << taker.id << " needs nothing";
      ++stopped_;
    }
    ASSERT_LE(has, state_.gpus.size());
    ASSERT_LE(will_have, state_.gpus.size());
  }
  size_t stopped() const { return stopped_; }

 private:
  Dice dice_;
  State state_;
  size_t stopped_ = 0;
};

TEST(Line, never_gives_more_than_there_is_and_stops_only_for_who_is_before) {
  size_t stopped = 0;
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE(seed);
    Chance chance(seed);
    chance.check();
    if (HasFatalFailure()) return;
    stopped += chance.stopped();
  }
  EXPECT_GT(stopped, 500u);
}

}  // namespace
}  // namespace tide::sched
