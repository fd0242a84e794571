// What jobs require, as text and as a rule; and what another pool.toml changes.

#include "scheduler/require.h"

#include <gtest/gtest.h>

#include "scheduler/change.h"
#include "scheduler/explain.h"
#include "tests/scheduler/policy_text.h"

namespace tide::sched {
namespace {

TEST(Require, a_model_is_whole_words_of_a_name) {
  const struct {
    const char *name, *wanted;
    bool is;
  } kRows[] = {{"NVIDIA H200", "H200", true},
               {"NVIDIA H200", "h200", true},
               {"NVIDIA H200", "NVIDIA H200", true},
               {"NVIDIA H100 80GB HBM3", "H100 80GB", true},
               {"NVIDIA A100-SXM4-80GB", "A100", true},
               {"NVIDIA A100-SXM4-80GB", "A10", false},
               {"NVIDIA L40S", "L40", false},
               {"NVIDIA H200", "H200 NVIDIA", false},
               {"NVIDIA H200", "", false},
               {"", "H200", false}};
  for (const auto& row : kRows) EXPECT_EQ(is_model(row.name, row.wanted), row.is) << row.name << " / " << row.wanted;
}

TEST(Require, what_is_written_is_read) {
  for (const Requirements& require :
       {Requirements(), Requirements{.model = "NVIDIA H200", .labels = {}, .together = Together::kServer},
        Requirements{.model = "", .labels = {"a=1", "b/c=d-e_f.g"}, .together = Together::kSwitch}}) {
    Requirements read;
    ASSERT_TRUE(parse_requirements(to_text(require), &read)) << to_text(require);
    EXPECT_EQ(read, require);
  }
  Requirements read{.model = "x", .labels = {}, .together = {}};
  for (const char* wrong : {"nonsense", "together rack", "model", ", "}) EXPECT_FALSE(parse_requirements(wrong, &read));
  EXPECT_EQ(read.model, "x");
}

TEST(Require, a_label_is_key_and_value) {
  for (const char* good : {"a=b", "team/rack=a-1_2.3"}) EXPECT_TRUE(is_label(good)) << good;
  for (const char* bad : {"", "a", "=", "a=", "=b", "a=b=c", "a=b c", "a=b,c", "\xc3\xa4=b"})
    EXPECT_FALSE(is_label(bad)) << bad;
  EXPECT_FALSE(is_label("a=" + std::string(64, 'x')));
}

std::string why(const char* pool) {
  const State state = parse_state(pool);
  const auto found = why_waits(state, state.jobs.back().id);
  return found ? found->reason : "";
}

TEST(Explains, one_reason_for_who_waits_found_by_trying) {
  EXPECT_EQ(why("1+1 gpus drain1; A n1 min1 on 0; B n1"), "waits because servers are being drained: s1");
  EXPECT_EQ(why("1+1 gpus s0:H200 s1:L40 unmoved; A n1 on 0; B n1 needs:H200"),
            "waits for GPUs that meet what it requires: model H200");
  EXPECT_EQ(why("2+1 gpus unmoved; A n1 on 0; B n2 min2 needs:server"),
            "waits for GPUs that meet what it requires: together server");
  EXPECT_EQ(why("1+1 gpus drain1; A n2 min2 on 0,1; B n1"), "") << "the drain is not why";
  EXPECT_EQ(why("1 gpus; A n1 on 0; B n1"), "");
  const std::string pieces = "waits because what it needs is free in pieces only, and ";
  EXPECT_EQ(why("2 gpus unmoved; A n1 part500 on 0; B n1 part500 on 1; C n1"),
            pieces + "jobs are not moved for others in this pool");
  EXPECT_EQ(why("2 gpus; A n1 part500 pinned on 0; B n1 part500 pinned on 1; C n1"),
            pieces + "who could make way was placed by hand");
  EXPECT_EQ(why("2 gpus; A n1 part500 pinned on 0; B n1 part600 pinned on 1; C n1"), "");
  EXPECT_EQ(why("1 gpus; A n1 on 0"), "") << "it runs";
}

std::string small(const char* pool) {
  const State state = parse_state(pool);
  const auto found = why_small(state, state.jobs.front().id);
  return found ? found->reason : "";
}

TEST(Explains, and_for_who_has_fewer_than_it_could) {
  EXPECT_EQ(small("2 gpus; A n2 t1 on 0,0"), "runs on 1 of 2 GPUs, because `tide resize` said so");
  EXPECT_EQ(small("1+1 gpus drain1; A n2 on 0,0"), "runs on 1 of 2 GPUs, because servers are being drained: s1");
  EXPECT_EQ(small("1+1 gpus s0:H200 s1:L40; A n2 needs:H200 on 0,0"),
            "runs on 1 of 2 GPUs, because there are no more for it that meet what it requires: model H200");
  EXPECT_EQ(small("2 gpus; A n2 on 0,0; B n1 on 1"), "runs on 1 of 2 GPUs, because other jobs share the pool");
  EXPECT_EQ(small("1 gpus; A n2 on 0,0"), "runs on 1 of 2 GPUs: the pool has no more");
  EXPECT_EQ(small("2 gpus; A n2 on 0,1"), "");
}

TEST(Change, says_what_counts_now_and_what_wants_a_restart) {
  PoolConfig before, after;
  ASSERT_TRUE(
      parse_config("[pool]\nlisten = \"127.0.0.1:1\"\n[[server]]\nname = \"a\"\nhold_s = 5\n", "f", &before).empty());
  ASSERT_TRUE(parse_config("[pool]\nlisten = \"127.0.0.1:2\"\nturns = \"30s\"\n[[server]]\nname = \"a\"\n"
                           "labels = [\"rack=b\"]\nswitch = \"x\"\n[[queue]]\nname = \"q\"\nquota = 2\n",
                           "f", &after)
                  .empty());
  const ConfigChange change = compare(before, after);
  EXPECT_EQ(change.now,
            (std::vector<std::string>{"turns: off -> 30s", "queue q: none -> quota 2, over_quota_weight 1, priority 0",
                                      "server a: none -> rack=b; switch x"}));
  EXPECT_EQ(change.restart,
            (std::vector<std::string>{"listen: 127.0.0.1:1 -> 127.0.0.1:2; needs a restart of the scheduler",
                                      "server a, hold_s: 5 -> none; needs a restart of its agent"}));
  EXPECT_TRUE(compare(after, after).now.empty() && compare(after, after).restart.empty());
}

TEST(Change, a_pause_is_what_was_measured_or_nothing) {
  const std::vector<Moved> moved = {{.job = "1", .vgpu = 0, .bytes = 100, .pause_ms = 5},
                                    {.job = "2", .vgpu = 0, .bytes = 1000, .pause_ms = 40},
                                    {.job = "3", .vgpu = 1, .bytes = 1500, .pause_ms = 60}};
  EXPECT_EQ(guess_pause("1", 0, 5000, moved).ms, 5) << "its own";
  EXPECT_EQ(guess_pause("1", 1, 1400, moved).ms, 60) << "the nearest";
  EXPECT_EQ(guess_pause("9", 0, 600, moved).ms, 40);
  EXPECT_LT(guess_pause("9", 0, 10'000, moved).ms, 0) << "too far away to say";
  EXPECT_LT(guess_pause("9", 0, 0, moved).ms, 0);
  EXPECT_NE(guess_pause("9", 0, 0, {}).source, "");
}

TEST(Change, touches_whom_the_policy_would_move) {
  const State before = parse_state("1+1 gpus s0:rack=a s1:rack=b; A n1 needs:rack=a on 0; B n1 on 1");
  State after = parse_state("1+1 gpus s0:rack=b s1:rack=b; A n1 on 0; B n1 on 1");
  EXPECT_TRUE(touched(before, before).empty());
  EXPECT_TRUE(touched(before, after).empty()) << "nothing is required any more";
  const State wide = parse_state("1+1+1 gpus s0:rack=a s1:rack=b s2:rack=c; A n1 needs:rack=a on 0; B n1 on 1");
  after = parse_state("1+1+1 gpus s0:rack=c s1:rack=b s2:rack=a; A n1 needs:rack=a on 0; B n1 on 1");
  const auto touches = touched(wide, after);
  ASSERT_EQ(touches.size(), 1u);
  EXPECT_EQ(touches[0].job, "A");
  EXPECT_EQ(touches[0].what, "1 virtual GPU moves: 0 from s0/0 to s2/0");
  EXPECT_EQ(touches[0].moves, std::vector<uint32_t>{0});
}

TEST(Change, and_whose_turn_would_end) {
  const State before = parse_state("1 gpus; A n1 on 0; B n1 ticket2");
  State after = parse_state("1 gpus turns; A n1 on 0 had4000 of6000; B n1 ticket2");
  const auto touches = touched(before, after);
  ASSERT_EQ(touches.size(), 1u);
  EXPECT_TRUE(touches[0].switches);
  EXPECT_EQ(touches[0].what,
            "is suspended in about 2 s, because it is the turn of job B, and comes back when it is its own");
}

}  // namespace
}  // namespace tide::sched
