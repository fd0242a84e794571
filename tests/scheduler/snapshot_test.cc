#include "scheduler/snapshot.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "base/log.h"
#include "base/mix.h"
#include "scheduler/decision_files.h"
#include "scheduler/policy.h"
#include "scheduler/replay.h"
#include "tests/scheduler/policy_text.h"
#include "tests/scheduler/queue_text.h"

namespace tide::sched {
namespace {

// How many fields an aggregate has.
struct Anything {
  template <class T>
  operator T() const;
};
template <class T, size_t... kIndex>
constexpr bool takes(std::index_sequence<kIndex...>) {
  return requires { T{(void(kIndex), Anything())...}; };
}
template <class T, size_t kCount = 1>
constexpr size_t fields_of() {
  if constexpr (takes<T>(std::make_index_sequence<kCount + 1>())) {
    return fields_of<T, kCount + 1>();
  } else {
    return kCount;
  }
}

constexpr const char* kUncarried =
    "a field is new that snapshots do not carry, so that recorded decisions could not be replayed: write and read it "
    "in state.capnp and snapshot.cc, give it a value in full_state() here, then count it";

TEST(Snapshots, carry_every_field_of_what_the_policy_sees) {
  EXPECT_EQ(fields_of<State>(), 10u) << kUncarried;
  EXPECT_EQ(fields_of<JobView>(), 42u) << kUncarried;
  EXPECT_EQ(fields_of<TurnView>(), 4u) << kUncarried;
  EXPECT_EQ(fields_of<GpuView>(), 6u) << kUncarried;
  EXPECT_EQ(fields_of<GpuTraits>(), 3u) << kUncarried;
  EXPECT_EQ(fields_of<GpuId>(), 2u) << kUncarried;
  EXPECT_EQ(fields_of<Requirements>(), 3u) << kUncarried;
  EXPECT_EQ(fields_of<QueueTree>(), 2u) << kUncarried;
  EXPECT_EQ(fields_of<Queue>(), 9u) << kUncarried;
  EXPECT_EQ(fields_of<ModelQuota>(), 6u) << "three of them say where it stands in the file; else: " << kUncarried;
  EXPECT_EQ(fields_of<Reservation>(), 6u) << kUncarried;
  EXPECT_EQ(fields_of<ShareRules>(), 1u) << kUncarried;
  EXPECT_EQ(fields_of<Decision>(), 5u) << kUncarried;
}

// Nothing in it has the value that it has by itself.
State full_state() {
  State state;
  const auto traits = std::make_shared<const GpuTraits>(
      GpuTraits{.model = "NVIDIA H200", .network_switch = "x", .labels = {"rack=a", "zone=b"}});
  state.gpus = {{.id = {"a", 1}, .memory_bytes = 5, .online = false, .healthy = false, .draining = true},
                {.id = {"b", 0}, .memory_bytes = 6, .traits = traits}};
  JobView job{.id = "7", .vgpus = 2, .min_gpus = 2, .part = kWholeGpu, .target = 1, .places = {{"a", 1}, {}}};
  job.memory_bytes = 11;
  job.memory_given = job.running = job.suspended = job.pinned = job.powers_of_two = job.spared = true;
  job.skipped = 3;
  job.failed_on = {"b"};
  job.keeps = {{"b", 0}};
  job.refused_by = {"a", "c"};
  job.turn = {.gives = true, .ticket = 4, .had_ms = 5, .length_ms = kEndless};
  job.queue = 2;
  job.priority = -3;
  job.preemptible = false;
  job.require = {.model = "H200", .labels = {"rack=a"}, .together = Together::kSwitch};
  job.job_class = JobClass::kInference;
  job.bytes = 21;
  job.useful_ms = 22;
  job.estimate_ms = 23;
  job.deadline_ms = 24;
  job.failed_moves = 25;
  job.moves_for = "26";
  job.switch_ms = 27;
  job.due_gpus = 28;
  job.due_more = 32;
  job.yields_to = "29";
  job.kept_out_for = "30";
  job.reservation = "31";
  job.barred = std::make_shared<const std::set<GpuId>>(std::set<GpuId>{{"b", 0}});
  job.entitled = true;
  job.place = -33;
  job.left_ms = 34;
  job.ends_ms = 35;
  job.passes = "36";
  job.overrun = true;
  JobView part{.id = "9", .part = 250, .places = {{"b", kParked}}};
  part.queue = 1;
  state.jobs = {job, part};
  state.turns = true;
  state.next_turn = "9";
  state.queues.queues = {{.name = "top", .children = {2}, .quota = 8000, .limit = 9000},
                         {.name = "other", .weight = 0.5, .preemptible = false},
                         {.name = "leaf", .parent = 0, .quota = 250, .priority = 5}};
  state.queues.top = {0, 1};
  state.used = {0.25, 0.5, 0.125};
  state.share_rules = {.past_weight = 0.75};
  state.now_ms = 1'700'000'000'123;
  state.consolidate = false;
  state.reservations = {{.name = "talk",
                         .gpus = 2,
                         .require = {.model = "H200", .labels = {"rack=a"}, .together = {}},
                         .from_ms = 5,
                         .until_ms = 6,
                         .exclusive = true}};
  state.queues.queues[2].models = {{.model = "H200", .quota = 1, .limit = 2}};
  return state;
}

void expect_equal(const State& is, const State& expected) {
  ASSERT_EQ(is.jobs.size(), expected.jobs.size());
  for (size_t i = 0; i < is.jobs.size(); ++i) {
    JobView a = is.jobs[i], b = expected.jobs[i];
    ASSERT_EQ(a.barred == nullptr, b.barred == nullptr);
    if (a.barred != nullptr) {
      EXPECT_EQ(*a.barred, *b.barred);
    }
    a.barred = b.barred = nullptr;
    EXPECT_EQ(a, b) << a.id;
  }
  EXPECT_EQ(state_bytes(is), state_bytes(expected));
  ASSERT_EQ(is.gpus.size(), expected.gpus.size());
  for (size_t i = 0; i < is.gpus.size(); ++i) {
    GpuView a = is.gpus[i], b = expected.gpus[i];
    ASSERT_EQ(a.traits == nullptr, b.traits == nullptr);
    if (a.traits != nullptr) {
      EXPECT_EQ(a.traits->model, b.traits->model);
      EXPECT_EQ(a.traits->network_switch, b.traits->network_switch);
      EXPECT_EQ(a.traits->labels, b.traits->labels);
    }
    a.traits = b.traits = nullptr;
    EXPECT_EQ(a, b);
  }
  EXPECT_EQ(is.turns, expected.turns);
  EXPECT_EQ(is.next_turn, expected.next_turn);
  EXPECT_EQ(is.queues.top, expected.queues.top);
  ASSERT_EQ(is.queues.queues.size(), expected.queues.queues.size());
  for (size_t i = 0; i < is.queues.queues.size(); ++i) {
    const Queue &a = is.queues.queues[i], &b = expected.queues.queues[i];
    EXPECT_EQ(std::tie(a.name, a.parent, a.children, a.quota, a.limit, a.weight, a.priority, a.preemptible),
              std::tie(b.name, b.parent, b.children, b.quota, b.limit, b.weight, b.priority, b.preemptible));
    ASSERT_EQ(a.models.size(), b.models.size());
    for (size_t m = 0; m < a.models.size(); ++m) {
      EXPECT_EQ(std::tie(a.models[m].model, a.models[m].quota, a.models[m].limit),
                std::tie(b.models[m].model, b.models[m].quota, b.models[m].limit));
    }
  }
  EXPECT_EQ(is.used, expected.used);
  EXPECT_EQ(is.share_rules.past_weight, expected.share_rules.past_weight);
  EXPECT_EQ(is.now_ms, expected.now_ms);
  EXPECT_EQ(is.consolidate, expected.consolidate);
  ASSERT_EQ(is.reservations.size(), expected.reservations.size());
  for (size_t i = 0; i < is.reservations.size(); ++i) {
    const Reservation &a = is.reservations[i], &b = expected.reservations[i];
    EXPECT_EQ(std::tie(a.name, a.gpus, a.require, a.from_ms, a.until_ms, a.exclusive),
              std::tie(b.name, b.gpus, b.require, b.from_ms, b.until_ms, b.exclusive));
  }
}

Snapshot snapshot_of(const State& state, uint64_t at_ms = 1'000, bool whys = true) {
  Snapshot snapshot;
  snapshot.at_ms = at_ms;
  snapshot.version = "1.2";
  snapshot.state = state;
  const Assignment answer = assign(state);
  snapshot.answer = changes_of(state, answer);
  for (const JobView& job : state.jobs) {
    if (!job.running && !answer.at(job.id).running && whys)
      snapshot.answer.push_back({job.id, answer.at(job.id), job.running, job.places});
  }
  return snapshot;
}

TEST(Snapshots, come_back_as_they_were) {
  Snapshot snapshot, read;
  snapshot.number = 12;
  snapshot.at_ms = 34;
  snapshot.version = "5.6";
  snapshot.state = full_state();
  snapshot.answer = {{"7",
                      {.running = true, .reason = "", .places = {{"b", 0}, {"b", 0}}, .moved_for = "9", .passes = "8"},
                      true,
                      {{"a", 1}, {}}},
                     {"9", {.running = false, .reason = "because", .places = {{"b", kParked}}}, false, {}}};
  const Outcome outcome = from_bytes(to_bytes(snapshot), &read);
  ASSERT_TRUE(outcome.ok()) << outcome.message();
  EXPECT_EQ(read.number, 12u);
  EXPECT_EQ(read.at_ms, 34u);
  EXPECT_EQ(read.version, "5.6");
  expect_equal(read.state, snapshot.state);
  ASSERT_EQ(read.answer.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read.answer[i].job, snapshot.answer[i].job);
    EXPECT_EQ(read.answer[i].decision, snapshot.answer[i].decision);
    EXPECT_EQ(read.answer[i].was_running, snapshot.answer[i].was_running);
    EXPECT_EQ(read.answer[i].was_places, snapshot.answer[i].was_places);
  }
}

// Of every file that is not what we wrote either nothing is read, or something that the policy can work on.
TEST(Snapshots, damage_is_refused_or_harmless) {
  Snapshot whole;
  whole.state = full_state();
  const std::string bytes = to_bytes(whole);
  Snapshot read;
  EXPECT_EQ(from_bytes("", &read).message(), "it is no snapshot; `tide snapshot FILE` writes one");
  EXPECT_EQ(from_bytes("job_id,submit_s\n", &read).message(), "it is no snapshot; `tide snapshot FILE` writes one");
  uint32_t refused = 0;
  for (uint64_t round = 0; round < 600; ++round) {
    std::string damaged = bytes;
    const size_t at = 14 + mix(round) % (bytes.size() - 14);
    if (round % 4 == 0) {
      damaged.resize(at);
    } else {
      damaged[at] = char(mix(round + 77));
    }
    if (from_bytes(damaged, &read).ok()) {
      (void)assign(read.state);
    } else {
      ++refused;
    }
  }
  EXPECT_GT(refused, 150u);
}

TEST(Snapshots, queues_that_are_no_tree_are_refused) {
  for (uint32_t wrong = 0; wrong < 6; ++wrong) {
    State state = full_state();
    auto& queues = state.queues.queues;
    if (wrong == 0) queues[0].children = {0};
    if (wrong == 1) queues[2].parent = 7;
    if (wrong == 2) state.queues.top = {0};
    if (wrong == 3) queues[1].weight = -1;
    if (wrong == 4) state.jobs[0].queue = 0;
    if (wrong == 5) state.used.resize(9);
    EXPECT_FALSE(read_state(state_bytes(state), &state).ok()) << wrong;
  }
}

// A pool that lives: jobs come, go and are decided upon.
class Life {
 public:
  State next() {
    const uint64_t roll = mix(++rolls_);
    if (state_.gpus.empty()) {
      state_ = parse_state("4+4+2 gpus");
      state_.gpus[3].traits =
          std::make_shared<const GpuTraits>(GpuTraits{.model = "A", .network_switch = "", .labels = {}});
    }
    if (roll % 3 == 0 && !state_.jobs.empty()) {
      state_.jobs.erase(state_.jobs.begin() + long(roll / 7 % state_.jobs.size()));
    } else {
      JobView job;
      job.id = std::to_string(++jobs_);
      job.vgpus = uint32_t(roll / 11 % 5 + 1);
      job.places.resize(job.vgpus);
      state_.jobs.push_back(job);
    }
    if (roll % 13 == 0) state_.gpus[roll / 13 % state_.gpus.size()].healthy ^= true;
    state_.now_ms += 1'000;
    const State asked = state_;
    state_ = after(state_, assign(state_));
    return asked;
  }

 private:
  State state_;
  uint64_t rolls_ = 0, jobs_ = 0;
};

TEST(Snapshots, differences_make_the_next_state_of_the_last) {
  Life life;
  State before = life.next();
  uint32_t small = 0;
  for (int i = 0; i < 300; ++i) {
    const State after = life.next();
    const std::string bytes = difference_bytes(before, after);
    ASSERT_FALSE(bytes.empty());
    small += bytes.size() * 2 < state_bytes(after).size() ? 1 : 0;
    ASSERT_TRUE(apply_difference(bytes, &before).ok());
    expect_equal(before, after);
  }
  EXPECT_GT(small, 100u);
  State other = before;
  std::swap(other.jobs.front(), other.jobs.back());
  EXPECT_EQ(difference_bytes(before, other), "") << "another order is no difference that can be said";
}

class Journals : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/tide-journal-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    directory_ = std::string(path) + "/decisions";
    open();
  }
  void TearDown() override { std::filesystem::remove_all(std::filesystem::path(directory_).parent_path()); }
  void open(uint64_t bytes = kBytes) {
    files_.reset();
    const Outcome opened = DecisionFiles::open(directory_, bytes, &files_);
    ASSERT_TRUE(opened.ok()) << opened.message();
  }
  void append(const State& state) {
    Snapshot snapshot = snapshot_of(state, state.now_ms, false);
    const Outcome written = files_->append(&snapshot);
    ASSERT_TRUE(written.ok()) << written.message();
    all_[snapshot.number] = state;
  }
  void expect_all_that_is_kept() {
    for (auto& [number, state] : all_) {
      Snapshot found;
      const Outcome outcome = files_->find({.number = number}, &found);
      ASSERT_EQ(outcome.ok(), number >= files_->first()) << outcome.message();
      if (outcome.ok()) expect_equal(found.state, state);
    }
  }

  static constexpr uint64_t kBytes = 60'000;

  std::string directory_;
  std::optional<DecisionFiles> files_;
  std::map<uint64_t, State> all_;
};

TEST_F(Journals, keep_decisions_in_no_more_room_than_they_may_have) {
  Life life;
  for (int i = 0; i < 700; ++i) {
    append(life.next());
    ASSERT_LE(files_->bytes(), kBytes);
  }
  EXPECT_GT(files_->first(), 1u) << "it is a ring";
  EXPECT_LT(files_->first(), 650u) << "that uses its room";
  EXPECT_EQ(files_->last(), 700u);
  expect_all_that_is_kept();
  open();
  expect_all_that_is_kept();
  append(life.next());
  EXPECT_EQ(files_->last(), 701u) << "numbers go on";
  expect_all_that_is_kept();
  files_->keep(kBytes / 2);
  EXPECT_LE(files_->bytes(), kBytes / 2);
  append(life.next());
  expect_all_that_is_kept();
}

TEST_F(Journals, are_found_by_time_and_by_job) {
  Life life;
  open(10 * kBytes);
  for (int i = 0; i < 200; ++i) append(life.next());
  Snapshot found;
  const uint64_t last_ms = all_.rbegin()->second.now_ms;
  ASSERT_TRUE(files_->find({.at_ms = last_ms - 10'500}, &found).ok());
  EXPECT_EQ(found.number, 189u);
  ASSERT_TRUE(files_->find({}, &found).ok());
  EXPECT_EQ(found.number, 200u);
  EXPECT_EQ(found.version, "1.2");
  EXPECT_FALSE(files_->find({.number = 201}, &found).ok());
  const auto about = files_->about("1", 1000);
  ASSERT_FALSE(about.empty());
  EXPECT_EQ(about.front().number, 1u);
  EXPECT_EQ(what_of(about.front().decided).rfind("starts on s", 0), 0u) << what_of(about.front().decided);
  EXPECT_EQ(files_->about("1", 1).size(), 1u);
  EXPECT_TRUE(files_->about("12345", 9).empty());
}

TEST_F(Journals, a_crash_in_the_middle_loses_that_decision_only) {
  Life life;
  for (int i = 0; i < 20; ++i) append(life.next());
  const auto newest = std::filesystem::directory_iterator(directory_)->path();
  std::filesystem::resize_file(newest, std::filesystem::file_size(newest) - 3);
  open();
  EXPECT_EQ(files_->last(), 20u) << "its number was given";
  all_.erase(20);
  append(life.next());
  EXPECT_EQ(files_->last(), 21u);
  expect_all_that_is_kept();
  std::filesystem::resize_file(newest, 5);
  open();
  EXPECT_EQ(files_->first(), 21u);
}

TEST_F(Journals, give_no_number_twice_whatever_is_damaged_and_leave_what_cannot_be_read) {
  Life life;
  for (int i = 0; i < 20; ++i) append(life.next());
  open();
  append(life.next());  // a file of its own
  const std::string first = directory_ + "/decisions.00000000000000000001";
  const std::string last = directory_ + "/decisions.00000000000000000021";
  std::filesystem::resize_file(last, 5);
  open();
  EXPECT_FALSE(std::filesystem::exists(last));
  append(life.next());
  EXPECT_EQ(files_->last(), 22u);
  std::filesystem::remove(directory_ + "/decisions.00000000000000000022");
  std::fstream(first, std::ios::in | std::ios::out).seekp(200) << "damaged";
  open();
  append(life.next());
  EXPECT_EQ(files_->last(), 21u);
  std::filesystem::remove(first);
  std::filesystem::create_symlink("/no/such/file", first);
  std::optional<DecisionFiles> none;
  EXPECT_FALSE(DecisionFiles::open(directory_, kBytes, &none).ok());
  EXPECT_TRUE(std::filesystem::is_symlink(first));
}

TEST_F(Journals, a_full_disk_is_said_and_leaves_what_is_there) {
  Life life;
  for (int i = 0; i < 5; ++i) append(life.next());
  signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit full{10, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &full);
  Snapshot snapshot = snapshot_of(life.next());
  const Outcome failed = files_->append(&snapshot);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_NE(failed.message().find("cannot write " + directory_), std::string::npos) << failed.message();
  expect_all_that_is_kept();
  append(life.next());
  EXPECT_EQ(files_->last(), 6u);
  expect_all_that_is_kept();
}

TEST(Replays, the_same_policy_decides_the_same) {
  Snapshot snapshot = snapshot_of(parse_state("4 gpus; A n4 min1 on 0,1,2,3; B n2 min2; C n4 min4"));
  const Assignment now = assign(snapshot.state);
  for (const Replayed& each : replay(snapshot, now)) EXPECT_TRUE(each.same) << each.then.job;
  snapshot.answer[0].decision.places[0] = {"s0", 3};
  snapshot.answer[2].decision.reason = "because";
  snapshot.answer.erase(snapshot.answer.begin() + 1);  // so nothing was decided about B
  std::string different;
  for (const Replayed& each : replay(snapshot, now)) different += each.same ? "" : each.then.job;
  EXPECT_EQ(different, "ABC");
}

TEST(Replays, changes_are_who_begins_ends_or_goes_elsewhere) {
  const State state = parse_state("4 gpus; A n2 on 0,1; B n4 min1 on 2,3,2,3; C n1; D n8 min8");
  std::string text;
  for (const Decided& each : changes_of(state, assign(state))) text += each.job + " " + what_of(each) + "; ";
  EXPECT_EQ(text, "B shrinks from 2 to 1 GPU: 1 from s0/3 to s0/2, 3 from s0/3 to s0/2; C starts on s0/3; ");
}

struct WhatIf {
  const char *pool, *what_if, *expected;
};
constexpr WhatIf kWhatIfs[] = {
    {"2 gpus; A n2 min2 on 0,1; B n2 min2", "gpus=+2", "A 0,1; B 2,3"},
    {"2 gpus; A n2 min2 on 0,1; B n2 min2", "gpus=4", "A 0,1; B 2,3"},
    {"4 gpus; A n2 min1 on 0,1", "gpus=-2", "A 0,1"},
    {"4 gpus; A n2 min1 on 0,1", "gpus=1", "A 0,0"},
    {"2+2 gpus; A n2 on 0,1", "drain=s0", "A 2,3"},
    {"2 gpus drain0; A n2", "undrain=s0", "A 0,1"},
    {"2 gpus; A n2 min2 on 0,1; B n2 min2", "without=A", "B 0,1"},
    {"2 gpus; A n2 min2 on 0,1; B n1", "job.A.min=1", "A 0,0; B 1"},
    {"2 gpus; A n2 min2 on 0,1; B n1", "gpus=+1&without=A", "B 2"},
};

TEST(Replays, what_if) {
  for (const WhatIf& row : kWhatIfs) {
    State state = parse_state(row.pool);
    const Outcome changed = apply_what_if(row.what_if, &state);
    ASSERT_TRUE(changed.ok()) << changed.message();
    EXPECT_EQ(to_text(state, assign(state)), row.expected) << row.pool << " with " << row.what_if;
  }
  State state = full_state();
  ASSERT_TRUE(apply_what_if("queue.leaf.quota=2.5&queue.other.limit=3&queue.top.limit=none", &state).ok());
  EXPECT_EQ(state.queues.queues[2].quota, 2500);
  EXPECT_EQ(state.queues.queues[1].limit, 3000);
  EXPECT_EQ(state.queues.queues[0].limit, kNoLimit);
  const std::string before = state_bytes(state);
  for (const char* wrong :
       {"", "gpus", "gpus=", "gpus=+x", "gpus=-3", "drain=z", "queue.z.quota=1", "queue.leaf.quota=-1",
        "queue.leaf.colour=1", "job.8.min=1", "job.7.min=3", "without=8", "gpus=+1&x=1"}) {
    EXPECT_FALSE(apply_what_if(wrong, &state).ok()) << wrong;
  }
  EXPECT_EQ(state_bytes(state), before) << "what cannot be done changes nothing";
}

}  // namespace
}  // namespace tide::sched
