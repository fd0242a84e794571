#include "scheduler/turns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "base/log.h"
#include "tests/scheduler/policy_text.h"

namespace tide::sched {
namespace {

struct Row {
  const char* what;
  const char* state;
  const char* plan;
};

// "B is next; A in 4". Several: with "|" between.
std::string to_text(const TurnPlan& plan) {
  std::string text;
  for (const TurnEnd& end : plan) {
    text += (text.empty() ? "" : " | ") + end.next + " is next";
    for (const std::string& id : end.over) text += (id == *end.over.begin() ? "; " : ",") + id;
    if (!end.over.empty()) text += format(" in %lu", (unsigned long)end.in_ms);
  }
  return text.empty() ? "nobody" : text;
}

constexpr Row kRows[] = {
    {"nobody waits", "1 gpus turns; A n1 on 0 had20", "nobody"},
    {"who waits has the turn next", "1 gpus turns; A n1 on 0 had5; B n1 ticket1", "B is next; A in 4"},
    {"and now, where it is due", "1 gpus turns; A n1 on 0 had12; B n1 ticket1", "B is next; A in 0"},
    {"not where jobs take no turns", "1 gpus; A n1 on 0 had12; B n1 ticket1", "nobody"},
    {"who can start without it ends no turn", "2 gpus turns; A n1 on 0 had12; B n1 ticket1", "B is next"},
    {"nor who can start when others shrink", "2 gpus turns; A n2 on 0,1 had12; B n1 ticket1", "B is next"},
    {"who keeps its minimum gives all of it", "2 gpus turns; A n2 min2 on 0,1 had12; B n1 ticket1",
     "B is next; A in 0"},
    {"who is excluded keeps its GPUs", "1 gpus turns; A n1 on 0 had12 keeper; B n1 ticket1", "nobody"},
    {"so does who has had to give up taking turns", "1 gpus turns; A n1 on 0 had12 endless; B n1 ticket1", "nobody"},
    {"it is not the submission that counts", "1 gpus turns; A n1 ticket5; B n1 on 0 had12; C n1 ticket3",
     "C is next; B in 0"},
    {"whoever has least of its turn left gives", "2 gpus turns; A n1 on 0 had3; B n1 on 1 had6; C n1 ticket1",
     "C is next; B in 3"},
    {"of two whose turn is over, who began first", "2 gpus turns; A n1 on 0 had11; B n1 on 1 had14; C n1 ticket1",
     "C is next; B in 0"},
    {"several end at once for who needs several", "2 gpus turns; A n1 on 0 had3; B n1 on 1 had6; C n2 min2 ticket1",
     "C is next; A,B in 6"},
    {"but no more than it needs", "3 gpus turns; A n1 on 0 had8; B n1 on 1 had6; D n1 on 2 had7; C n2 min2 ticket1",
     "C is next; A,D in 2"},
    {"not small ones where a large one is enough",
     "3 gpus turns; A n1 on 0 had8; B n2 min2 on 1,2 had6; C n2 min2 ticket1", "C is next; B in 3"},
    {"a free GPU counts", "2 gpus turns; A n1 on 0 had3; C n2 min2 ticket1", "C is next; A in 6"},
    {"who needs more than turns can free lets others pass",
     "3 gpus turns; A n1 on 0 had8; B n2 min2 on 1,2 keeper; C n2 min2 ticket1; D n1 ticket2", "D is next; A in 1"},
    {"who needs more than there is, too", "1 gpus turns; A n1 on 0 had8; C n2 min2 ticket1; D n1 ticket2",
     "D is next; A in 1"},
    {"memory that must fit is looked at",
     "2 gpus turns unmoved small0; A n1 on 0 had9; B n1 on 1 had2; C n1 mem16 ticket1", "C is next; B in 7"},
    {"who can be moved to where it fits need not leave",
     "2 gpus turns small0; A n1 on 0 had9; B n1 on 1 had2; C n1 mem16 ticket1", "C is next; A in 0"},
    {"several are next at once",
     "3 gpus turns; A n1 on 0 had9; B n1 on 1 had12; C n1 on 2 had3; D n1 ticket1; E n1 ticket2",
     "D is next; B in 0 | E is next; A in 0"},
    {"but nobody passes who has to wait longer",
     "3 gpus turns; A n1 on 0 had9; B n1 on 1 had12; C n1 on 2 had3; D n3 min3 ticket1; E n1 ticket2",
     "D is next; A,B,C in 6"},
    {"who waits while another leaves is before the next",
     "2 gpus turns; A n1 suspended on 0; B n1 on 1 had4; D n1 ticket1; E n1 ticket2", "D is next | E is next; B in 5"},
    {"who leaves already need not leave for it twice",
     "1+1 gpus turns; A n1 suspended on 0 had9; B n1 on 1 had9; C n1 ticket1", "C is next"},
    {"nor its half", "2 gpus turns; A n2 min2 suspended on p0,1 keeps0 had9; C n1 ticket1", "C is next"},
    {"whom somebody suspended takes no turns", "1 gpus turns; A n1 on 0 had12; B n1 suspended waiting on p0 ticket1",
     "nobody"},
    {"who has been parked comes back", "1 gpus turns; A n1 on 0 had12; B n1 waiting on p0 ticket1",
     "B is next; A in 0"},
    {"who cannot be resumed anywhere waits",
     "1 gpus turns; A n1 on 0 had12; B n1 waiting on p0 failed0 ticket1; C n1 ticket2", "C is next; A in 0"},
    {"a server that is away gives nothing", "1 gpus turns off0; A n1 on 0 had12; B n1 ticket1", "nobody"},
};

TEST(Turns, the_table) {
  for (const Row& row : kRows) {
    EXPECT_EQ(to_text(plan_turns(parse_state(row.state))), row.plan) << row.what << ": " << row.state;
  }
}

// What the policy makes of it.
constexpr Row kAssigned[] = {
    {"who has waited longest starts first", "1 gpus turns; A n1 ticket5; B n1 ticket3", "A waits; B 0"},
    {"in the order of submission without turns", "1 gpus; A n1 ticket5; B n1 ticket3", "A 0; B waits"},
    {"nobody passes whose turn is next", "2 gpus turns for B; A n1 on 0; B n2 min2 ticket1; C n1 ticket2",
     "A 0; B waits; C waits"},
    {"but who was before it may", "2 gpus turns for B; A n1 on 0; B n2 min2 ticket2; C n1 ticket1",
     "A 0; B waits; C 1"},
    {"who has had turns does not wait for whom no turn helps",
     "2 gpus turns for C; A n1 on 0 keeper; B n2 min2 skip16 ticket1; C n1 waiting on p0 ticket2", "A 0; B waits; C 1"},
    {"who has waited longest has the one GPU that is large enough",
     "2 gpus turns small0; A n1 mem16 ticket5; B n1 mem16 ticket3", "A waits; B 1"},
    {"who never ran does", "2 gpus turns; A n1 on 0 keeper; B n2 min2 skip16 ticket1; C n1 ticket2",
     "A 0; B waits; C waits"},
};

TEST(Turns, the_policy_keeps_the_order) {
  for (const Row& row : kAssigned) {
    const State state = parse_state(row.state);
    EXPECT_EQ(to_text(state, assign(state)), row.plan) << row.what << ": " << row.state;
  }
}

TEST(Turns, switching_takes_a_twentieth_at_most) {
  const TurnRules automatic{.on = true}, fixed{.on = true, .fixed_ms = 700};
  EXPECT_EQ(turn_length_ms(automatic, {}, 0), kTurnLeastMs);
  EXPECT_EQ(turn_length_ms(automatic, {.suspend_ms = 400, .resume_ms = 600}, 0), 20'000u);
  EXPECT_EQ(turn_length_ms(automatic, {.suspend_ms = 40'000, .resume_ms = 60'000}, 0), kTurnMostMs);
  EXPECT_EQ(turn_length_ms(automatic, {.bytes = 4ull << 30}, 0), 2 * 4096u * kTurnWorth) << "a guess, at first";
  EXPECT_EQ(turn_length_ms(automatic, {.suspend_ms = 500, .bytes = 1 << 30}, 0), (500 + 1024) * kTurnWorth);
  EXPECT_EQ(turn_length_ms(fixed, {.suspend_ms = 400, .resume_ms = 600}, 0), 700u);
}

TEST(Turns, they_get_longer_where_switching_fails_or_is_not_worth_it) {
  const TurnRules fixed{.on = true, .fixed_ms = 1000};
  uint32_t strain = 0;
  for (uint32_t i = 1; i < kStrainMax; ++i) {
    strain = strain_after_failure(strain);
    EXPECT_EQ(turn_length_ms(fixed, {}, strain), 1000u << i);
  }
  strain = strain_after_failure(strain);
  EXPECT_EQ(turn_length_ms(fixed, {}, strain), kEndless) << "one after the other";
  EXPECT_EQ(strain_after_failure(strain), strain);

  EXPECT_EQ(strain_after(240, 1000, 0), 0u);
  EXPECT_EQ(strain_after(260, 1000, 0), 1u) << "a quarter of the turn";
  EXPECT_EQ(strain_after(260, 2000, 1), 1u) << "half the length would bring it back";
  EXPECT_EQ(strain_after(100, 2000, 1), 0u);
  EXPECT_EQ(strain_after(500'000, kEndless, kStrainMax), kStrainMax - 1) << "somebody suspended and resumed it";
  EXPECT_EQ(turn_length_ms({.on = true}, {.suspend_ms = 200'000, .resume_ms = 200'000}, 1), 2 * kTurnMostMs);
}

TEST(Turns, how_long_each_waits_is_said) {
  const State state = parse_state(
      "2 gpus turns; A n1 on 0 had5 of9; B n1 on 1 had1 of9; C n1 ticket3 of40; D n1 ticket4; E n5 min5 ticket1");
  const auto waits = estimate_waits(state, plan_turns(state));
  EXPECT_EQ(waits, (std::map<std::string, uint64_t>{{"C", 4}, {"D", 4 + 40 / 2}}));
}

// A pool as a loop of plan, park and assign, in which parking takes a while: everybody gets turns, and nobody passes.
class Loop {
 public:
  explicit Loop(const char* state) : state_(parse_state(state)) {
    for (JobView& job : state_.jobs) job.turn.ticket = ++tickets_;
  }
  void run(uint64_t ms, uint64_t step_ms) {
    for (const uint64_t end = now_ + ms; now_ < end; now_ += step_ms) step(step_ms);
  }
  uint64_t most_wait_ms(const std::string& id) const { return waited_.count(id) != 0 ? waited_.at(id) : 0; }
  uint64_t ran_ms(const std::string& id) const { return ran_.count(id) != 0 ? ran_.at(id) : 0; }

 private:
  void step(uint64_t ms) {
    for (JobView& job : state_.jobs) park(job);
    const TurnPlan plan = plan_turns(state_);
    state_.next_turn = plan.empty() ? "" : plan.front().next;
    for (JobView& job : state_.jobs) {
      for (const TurnEnd& end : plan) job.suspended |= end.in_ms == 0 && end.over.count(job.id) != 0;
    }
    const Assignment wanted = assign(state_);
    for (JobView& job : state_.jobs) {
      const Decision& decision = wanted.at(job.id);
      const bool begins = decision.running && !job.running;
      if (begins) expect_in_order(wanted, job);
      if (begins) job.turn.had_ms = waits_[job.id] = 0;
      job.running = decision.running;
      job.turn.gives = job.running;
      if (decision.running && !job.suspended) job.places = decision.places;
      (job.running ? job.turn.had_ms : waits_[job.id]) += ms;
      if (job.running) ran_[job.id] += ms;
      waited_[job.id] = std::max(waited_[job.id], waits_[job.id]);
    }
  }
  void park(JobView& job) {
    if (!job.running || !job.suspended) return;
    for (GpuId& place : job.places) place.index = kParked;
    job.running = job.suspended = false;
    job.turn.ticket = ++tickets_;
  }
  void expect_in_order(const Assignment& wanted, const JobView& begins) const {
    for (const JobView& other : state_.jobs) {
      const bool waits = !other.running && !wanted.at(other.id).running;
      EXPECT_FALSE(waits && other.turn.ticket < begins.turn.ticket && other.min_gpus <= begins.min_gpus)
          << begins.id << " passed " << other.id << " at " << now_;
    }
  }

  State state_;
  uint64_t tickets_ = 0, now_ = 0;
  std::map<std::string, uint64_t> waits_, waited_, ran_;
};

TEST(Turns, everybody_gets_its_turn_within_a_round) {
  Loop loop("1 gpus turns; A n1 of50; B n1 of50; C n1 of50; D n1 of100");
  loop.run(5000, 1);
  for (const char* id : {"A", "B", "C"}) {
    EXPECT_LE(loop.most_wait_ms(id), 50u + 50 + 100 + 8) << id;
    EXPECT_NEAR(double(loop.ran_ms(id)), 5000 / 5.0, 60) << id;
  }
  EXPECT_NEAR(double(loop.ran_ms("D")), 2 * 5000 / 5.0, 110);
}

TEST(Turns, large_and_small_ones_take_turns) {
  Loop loop("2+2 gpus turns; A n4 min4 of50; B n1 of50; C n2 min2 of50; D n1 of50; E n3 min3 of50; F n1 of50");
  loop.run(10000, 1);
  for (const char* id : {"A", "B", "C", "D", "E", "F"}) {
    EXPECT_LE(loop.most_wait_ms(id), 5 * 50u + 50) << id;
    EXPECT_GE(loop.ran_ms(id), 10000u / 6) << id;
  }
}

}  // namespace
}  // namespace tide::sched
