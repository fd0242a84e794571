#include "scheduler/invariants.h"

#include <gtest/gtest.h>

#include "tests/scheduler/queue_text.h"

namespace tide::sched {
namespace {

// What is said of a decision that puts each job on GPUs: "A 0,1; B waits".
std::string wrong(const State& state, const std::string& text) {
  Assignment assignment;
  for (const std::string& part : split(text, ';')) {
    std::istringstream in(part);
    std::string id, places;
    in >> id >> places;
    Decision& decision = assignment[id];
    decision.running = places != "waits";
    if (!decision.running) continue;
    for (const std::string& place : split(places, ',')) decision.places.push_back(parse_place(place, state));
  }
  return what_is_wrong(state, assignment);
}

std::string wrong(const char* pool, const char* decision) { return wrong(parse_state(pool), decision); }

TEST(Invariants, what_is_right_is_not_complained_of) {
  EXPECT_EQ(wrong("2 gpus; A n1 part500 on 0; B n1 part500 on 1; C n1", "A 0; B 0; C 1"), "");
  EXPECT_EQ(wrong("2 gpus; A n2; B n1", "A 0,0; B 1"), "");
  EXPECT_EQ(wrong("1 gpus; A n1 on 0; B n1", "A 0; B waits"), "");
  EXPECT_EQ(wrong("1 gpus sick0; A n1 on 0", "A 0"), "") << "it was there before";
  EXPECT_EQ(wrong("2 gpus; A n1 part500 mem12; B n1 part500 mem4", "A 1; B 1"), "");
}

TEST(Invariants, what_is_wrong_is_named) {
  EXPECT_EQ(wrong("2 gpus; A n1 on 0; B n1", "A 0; B 0"), "GPU s0/0 is given to 2 jobs, 2000 thousandths in all");
  EXPECT_EQ(wrong("1 gpus; A n1 part500 on 0; B n1 part600", "A 0; B 0"),
            "GPU s0/0 is given to 2 jobs, 1100 thousandths in all");
  EXPECT_EQ(wrong("1 gpus; A n1 part500 mem12 on 0; B n1 part500 mem8", "A 0; B 0"),
            "GPU s0/0 has 16 bytes of memory, and quotas of 20 on it");
  EXPECT_EQ(wrong("1 gpus; A n2 mem12", "A 0,0"), "GPU s0/0 has 16 bytes of memory, and quotas of 24 on it");
  EXPECT_EQ(wrong("1 gpus; A n2", "A 0"), "job A has 1 places for 2 virtual GPUs");
  EXPECT_EQ(wrong("2 gpus; A n2 min2", "A 0,0"), "job A starts on fewer GPUs than its minimum of 2");
  EXPECT_EQ(wrong("1 gpus sick0; A n1", "A 0"), "job A gets GPU s0/0, which is not usable");
  EXPECT_EQ(wrong("1+1 gpus s0:H200; A n1 needs:H200", "A 1"),
            "job A gets GPU s1/0, which does not meet what it requires");
  EXPECT_EQ(wrong("1+1 gpus; A n2 needs:server", "A 0,1"), "job A does not lie together, as it requires");
  EXPECT_EQ(wrong("2 gpus; A n1 suspended on p0 keeps1; B n1", "A p0; B 1"),
            "GPU s0/1 is given to 2 jobs, 2000 thousandths in all");
  EXPECT_EQ(wrong("1 gpus; A n1; B n1", "A 0"), "job B has no decision");
}

TEST(Invariants, limits_of_queues_hold) {
  State state = parse_state("4 gpus; A n2; B n1");
  std::vector<QueueConfig> configs;
  for (const char* text : {"all limit3", "a limit1 in all", "b in all"}) configs.push_back(parse_queue(text).config);
  state.queues = make_tree(configs);
  state.jobs[0].queue = state.jobs[1].queue = state.queues.find("a");
  EXPECT_EQ(wrong(state, "A waits; B 0"), "");
  EXPECT_EQ(wrong(state, "A 0,1; B waits"), "queue a gets 2000 thousandths of GPUs, and may have 1000");
  for (JobView& job : state.jobs) job.queue = state.queues.find("b");
  EXPECT_EQ(wrong(state, "A 0,1; B 2"), "");
  state.jobs[0].vgpus = 3;
  EXPECT_EQ(wrong(state, "A 0,1,2; B 3"), "queue all gets 4000 thousandths of GPUs, and may have 3000");
}

}  // namespace
}  // namespace tide::sched
