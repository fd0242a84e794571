#include "scheduler/shares.h"

#include <gtest/gtest.h>

#include "base/log.h"
#include "scheduler/next_queue.h"
#include "scheduler/usage.h"
#include "tests/scheduler/queue_text.h"

namespace tide::sched {
namespace {

struct Row {
  const char* what;
  const char* pool;
  const char* fair;
};

constexpr Row kRows[] = {
    {"who is alone gets all", "8 gpus; a wants8; b", "a 8; b 0"},
    {"nobody gets more than it asks for", "8 gpus; a wants3; b wants2", "a 3; b 2"},
    {"equal weights share evenly", "8 gpus; a wants8; b wants8", "a 4; b 4"},
    {"what one leaves goes to the others", "8 gpus; a wants1; b wants8; c wants8", "a 1; b 4; c 3"},
    {"weights count beyond quotas", "9 gpus; a weight2 wants9; b wants9", "a 6; b 3"},
    {"quotas come first", "8 gpus; a quota6 wants8; b wants8", "a 7; b 1"},
    {"a quota that nobody uses is lent", "8 gpus; a quota6 wants1; b wants8", "a 1; b 7"},
    {"weights do not touch quotas", "10 gpus; a quota4 wants8; b quota2 weight3 wants8", "a 5; b 5"},
    {"a limit holds", "8 gpus; a limit3 wants8; b wants2", "a 3; b 2"},
    {"and leaves the rest to others", "8 gpus; a limit2 wants8; b wants8", "a 2; b 6"},
    {"limits may be fractions", "2 gpus; a limit0.5 wants2; b wants2", "a 0.5; b 1.5"},
    {"weight 0 gets nothing while others ask", "8 gpus; a weight0 wants8; b wants8", "a 0; b 8"},
    {"and what they leave", "8 gpus; a weight0 wants8; b wants5", "a 3; b 5"},
    {"weight 0 keeps its quota", "8 gpus; a quota2 weight0 wants8; b wants8", "a 2; b 6"},
    {"higher priority is served first beyond quotas", "8 gpus; a prio1 wants6; b wants6", "a 6; b 2"},
    {"not before others' quotas", "8 gpus; a prio1 wants8; b quota3 wants6", "a 5; b 3"},
    {"not preemptible: the quota and no more", "8 gpus; a hard quota3 wants8; b wants2", "a 3; b 2"},
    {"quotas beyond the pool shrink alike", "6 gpus; a quota8 wants8; b quota4 wants8", "a 4; b 2"},
    {"the higher priority's first", "6 gpus; a quota4 prio1 wants8; b quota4 wants8", "a 4; b 2"},
    {"the odd GPU goes to the first of the file", "3 gpus; a wants3; b wants3", "a 2; b 1"},
    {"or who has it", "3 gpus; a wants3 has1; b wants3 has2", "a 1; b 2"},
    {"or had less in the past", "3 gpus; a wants3 used0.1; b wants3", "a 1; b 2"},
    {"one GPU is not torn", "1 gpus; a wants1; b wants1", "a 1; b 0"},
    {"parts of one are", "1 gpus; a wants0.5; b wants0.5", "a 0.5; b 0.5"},
    {"fractions of quotas are kept", "4 gpus; a quota1.5 wants4; b quota2.5 wants4", "a 1.5; b 2.5"},
    {"the past weighs", "8 gpus; a wants8 used0.5; b wants8", "a 3; b 5"},
    {"not against a quota", "8 gpus; a quota4 wants8 used1; b quota4 wants8", "a 4; b 4"},
    {"nor where nobody else asks", "8 gpus; a wants8 used1; b", "a 8; b 0"},
    {"equal pasts weigh nothing", "8 gpus; a wants8 used0.4; b wants8 used0.4", "a 4; b 4"},
    {"a tree: parents first", "8 gpus; p; q; a in p wants8; b in p wants8; c in q wants8", "p 4; q 4; a 2; b 2; c 4"},
    {"what a child leaves stays in the family", "8 gpus; p; q; a in p wants1; b in p wants8; c in q wants8",
     "p 4; q 4; a 1; b 3; c 4"},
    {"what a family leaves goes to the others", "8 gpus; p; q; a in p wants1; b in p wants1; c in q wants8",
     "p 2; q 6; a 1; b 1; c 6"},
    {"a parent's limit binds its children", "8 gpus; p limit3; a in p wants8; b in p wants8; c wants2",
     "p 3; a 2; b 1; c 2"},
    {"a parent's quota is its children's", "8 gpus; p quota6; a in p wants8; c wants8", "p 7; a 7; c 1"},
    {"children's quotas within it", "8 gpus; p quota6; a in p quota4 wants8; b in p wants8; c wants8",
     "p 7; a 6; b 1; c 1"},
    {"a child's limit frees its parent's share", "8 gpus; p; a in p limit1 wants8; c wants8", "p 1; a 1; c 7"},
    {"a family that may not be disturbed has its quotas", "8 gpus; p hard quota4; a in p quota3 wants8; c wants8",
     "p 3; a 3; c 5"},
    {"three levels", "12 gpus; p; q; r in p; s in p; a in r wants12; b in s wants12; c in q wants12",
     "p 6; q 6; r 3; s 3; a 3; b 3; c 6"},
    {"no GPU", "0 gpus; a quota4 wants4; b wants1", "a 0; b 0"},
    {"no demand", "8 gpus; a quota4; b", "a 0; b 0"},
};

std::string gpus_text(int64_t thousandths) {
  return thousandths % 1000 == 0 ? std::to_string(thousandths / 1000) : format("%g", double(thousandths) / 1000);
}

// In the order of `expected`'s names.
std::string fair_text(const Sharing& sharing, const std::string& expected) {
  std::string text;
  for (const std::string& part : split(expected, ';')) {
    std::string name;
    std::istringstream(part) >> name;
    text += (text.empty() ? "" : "; ") + name + " " + gpus_text(sharing.shares.at(size_t(sharing[name])).fair);
  }
  return text;
}

TEST(Shares, follow_the_table) {
  for (const Row& row : kRows)
    EXPECT_EQ(fair_text(share(row.pool), row.fair), row.fair) << row.what << ": " << row.pool;
}

// Whatever the tree: nothing is given twice or withheld, limits and quotas hold, and who has its share keeps it.
TEST(Shares, keep_their_promises_on_any_tree) {
  uint64_t drawn = 7;
  const auto below = [&](int64_t most) {
    drawn = drawn * 6364136223846793005u + 1442695040888963407u;
    return int64_t((drawn >> 33) % uint64_t(most));
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<QueueConfig> configs;
    const size_t count = 1 + size_t(below(12));
    for (size_t i = 0; i < count; ++i) {
      QueueConfig config{.name = std::to_string(i)};
      if (i > 0 && below(2) == 0) config.parent = std::to_string(below(int64_t(i)));
      config.over_quota_weight = double(below(4));
      config.priority = int32_t(below(2));
      if (config.parent.empty()) config.quota = double(below(5));
      if (below(3) == 0) config.limit = config.quota + double(below(4));
      configs.push_back(config);
    }
    const QueueTree tree = make_tree(configs);
    std::vector<QueueLoad> loads(tree.queues.size());
    for (QueueLoad& load : loads) {
      load = {.demand = below(12) * 1000, .allocated = 0, .used = double(below(100)) / 100};
      load.allocated = std::min(load.demand, below(4) * 1000);
    }
    const int64_t pool = below(30) * 1000;
    const QueueShares shares = fair_shares(tree, loads, pool);
    int64_t given = 0, wanted = 0;
    for (const int32_t top : tree.top) given += shares[size_t(top)].fair;
    ASSERT_LE(given, pool);
    bool all_have = true;
    for (size_t i = 0; i < tree.queues.size(); ++i) {
      const Queue& queue = tree.queues[i];
      ASSERT_GE(shares[i].fair, 0);
      ASSERT_LE(shares[i].fair, std::min(queue.limit, shares[i].demand));
      if (queue.leaf()) continue;
      int64_t children = 0;
      for (const int32_t child : queue.children) children += shares[size_t(child)].fair;
      ASSERT_EQ(children, shares[i].fair);
    }
    for (size_t i = 0; i < tree.queues.size(); ++i) {
      if (!tree.queues[i].leaf()) continue;
      wanted += std::min(loads[i].demand, most_ever(tree, int32_t(i)));
      all_have &= shares[i].fair == std::min(loads[i].demand, most_ever(tree, int32_t(i)));
    }
    ASSERT_TRUE(given == std::min(given, pool) && (all_have || given == pool || given < wanted));
    std::vector<QueueLoad> then = loads;  // who has its share is owed the same
    for (size_t i = 0; i < then.size(); ++i) then[i].allocated = shares[i].fair;
    const QueueShares again = fair_shares(tree, then, pool);
    const QueueShares once_more = fair_shares(tree, then, pool);
    for (size_t i = 0; i < then.size(); ++i) {
      ASSERT_EQ(again[i].fair, once_more[i].fair);
      if (tree.queues[i].leaf()) {
        ASSERT_EQ(again[i].fair, shares[i].fair) << round;
      }
    }
  }
}

TEST(Shares, reclaim_takes_what_is_beyond_a_share) {
  const Sharing s = share("8 gpus; a wants8 has8; b wants4");
  EXPECT_TRUE(may_reclaim(s.tree, s.shares, s["b"], 4000, s["a"]));
  EXPECT_FALSE(may_reclaim(s.tree, s.shares, s["b"], 5000, s["a"])) << "more than it is owed";
  EXPECT_FALSE(may_reclaim(s.tree, s.shares, s["a"], 1000, s["b"]));
  EXPECT_FALSE(may_reclaim(s.tree, s.shares, s["b"], 1000, s["b"])) << "of itself";
}

TEST(Shares, reclaim_leaves_who_has_its_share_alone) {
  const Sharing s = share("8 gpus; a quota4 wants8 has4; b wants4 has4; c quota2 wants2");
  EXPECT_FALSE(may_reclaim(s.tree, s.shares, s["c"], 2000, s["a"]));
  EXPECT_TRUE(may_reclaim(s.tree, s.shares, s["c"], 2000, s["b"]));
}

TEST(Shares, reclaim_never_takes_from_who_is_not_preemptible) {
  const Sharing s = share("4 gpus; a hard quota2 wants4 has4; b quota4 wants4");
  EXPECT_FALSE(may_reclaim(s.tree, s.shares, s["b"], 1000, s["a"]));
}

TEST(Shares, reclaim_within_a_family_is_its_own_affair) {
  // p as a whole has what it is owed; in it a has too much.
  const Sharing s = share("8 gpus; p; q; a in p wants4 has4; b in p wants4; c in q wants8 has4");
  EXPECT_TRUE(may_reclaim(s.tree, s.shares, s["b"], 2000, s["a"]));
  EXPECT_FALSE(may_reclaim(s.tree, s.shares, s["b"], 2000, s["c"]));
  EXPECT_FALSE(may_reclaim(s.tree, s.shares, s["c"], 1000, s["a"])) << "its family has its share";
}

TEST(Shares, reclaim_begins_with_who_has_most_beyond_its_share) {
  const Sharing s = share("9 gpus; a wants9 has4; b wants9 has5; c wants3");
  EXPECT_EQ(reclaimable(s.tree, s.shares, s["c"], 3000), (std::vector<int32_t>{s["b"], s["a"]}));
}

TEST(Shares, after_a_reclaim_nobody_takes_it_back) {
  Sharing s = share("8 gpus; a wants8 has8; b wants8");
  allocate(s.tree, s["a"], -4000, &s.shares);
  allocate(s.tree, s["b"], 4000, &s.shares);
  EXPECT_TRUE(reclaimable(s.tree, s.shares, s["a"], 1000).empty());
  EXPECT_TRUE(reclaimable(s.tree, s.shares, s["b"], 1000).empty());
}

TEST(Shares, headroom_names_the_limit_that_binds) {
  const Sharing s = share("8 gpus; p limit4; a in p limit3 wants8 has1; b in p wants8 has2; c hard quota2 wants4 has1");
  int32_t by = kNoQueue;
  EXPECT_EQ(headroom(s.tree, s.shares, s["a"], &by), 1000);
  EXPECT_EQ(by, s["p"]);
  EXPECT_EQ(most_ever(s.tree, s["a"], &by), 3000);
  EXPECT_EQ(by, s["a"]);
  EXPECT_EQ(headroom(s.tree, s.shares, s["c"], &by), 1000) << "of its quota, being not preemptible";
  EXPECT_EQ(most_ever(share("8 gpus; a").tree, 0), kNoLimit);
}

std::string next_of(const Sharing& s, const std::string& waiting) {
  std::vector<int64_t> needs(s.tree.queues.size());
  for (const std::string& name : split(waiting, ' ')) needs[size_t(s[name])] = 1000;
  const int32_t next = next_queue(s.tree, s.shares, needs);
  return next == kNoQueue ? "none" : s.tree.queues[size_t(next)].name;
}

TEST(Shares, the_next_queue_is_who_is_within_its_quota) {
  const Sharing s = share("8 gpus; a prio5 wants8 has2; b quota2 wants4 has1; c wants8");
  EXPECT_EQ(next_of(s, "a b c"), "b");
  EXPECT_EQ(next_of(s, "a c"), "a") << "the higher priority";
  EXPECT_EQ(next_of(s, "c"), "c");
  EXPECT_EQ(next_queue(s.tree, s.shares, {}), kNoQueue);
}

TEST(Shares, the_next_queue_is_who_has_the_smaller_part_of_its_share) {
  EXPECT_EQ(next_of(share("12 gpus; a wants12 has4; b wants12 has2"), "a b"), "b");
  EXPECT_EQ(next_of(share("12 gpus; a wants12 has3; b wants12 has3"), "a b"), "a");
  EXPECT_EQ(next_of(share("12 gpus; a wants12 used0.2; b wants12"), "a b"), "b") << "who had less in the past";
  EXPECT_EQ(next_of(share("12 gpus; p; q; a in p wants12 has4; b in p wants12; c in q wants12 has3"), "a b c"), "c")
      << "q has the smaller part, whatever b has within p";
}

TEST(Shares, a_pool_without_queues_has_one_that_is_unlimited) {
  const QueueTree tree = make_tree({});
  ASSERT_EQ(tree.queues.size(), 1u);
  EXPECT_EQ(tree.queues[0].name, kDefaultQueue);
  EXPECT_EQ(most_ever(tree, 0), kNoLimit);
  EXPECT_EQ(fair_shares(tree, {{.demand = 5000}}, 8000)[0].fair, 5000);
}

TEST(Usage, half_is_forgotten_in_a_half_life) {
  Usage usage{{"a", 1000}};
  account(&usage, {}, 60'000, 60'000);
  EXPECT_DOUBLE_EQ(usage["a"], 500);
  for (int i = 0; i < 600; ++i) account(&usage, {{"b", 2000}}, 60'000, 60'000);
  EXPECT_EQ(usage.count("a"), 0u) << "forgotten";
  EXPECT_NEAR(part_of_past(usage["b"], 8000, 60'000), 0.25, 1e-9) << "two of eight, always";
}

TEST(Usage, does_not_depend_on_how_often_it_is_counted) {
  Usage once, often;
  account(&once, {{"a", 3000}}, 10'000, 60'000);
  for (int i = 0; i < 1000; ++i) account(&often, {{"a", 3000}}, 10, 60'000);
  EXPECT_NEAR(once["a"], often["a"], 1e-6);
  EXPECT_NEAR(once["a"], 30, 2) << "GPU-seconds, while little is forgotten";
}

}  // namespace
}  // namespace tide::sched
