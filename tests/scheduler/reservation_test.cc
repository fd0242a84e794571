// Reservations and quotas by model: what pool.toml may say of them, and what follows that stories do not tell.

#include <gtest/gtest.h>

#include "scheduler/change.h"
#include "scheduler/explain.h"
#include "scheduler/models.h"
#include "scheduler/planner.h"
#include "scheduler/pool_reservations.h"
#include "scheduler/reservations.h"
#include "tests/scheduler/queue_text.h"

namespace tide::sched {
namespace {

using Lines = std::vector<std::string>;

Lines errors_of(const std::string& text) {
  PoolConfig config;
  Lines lines;
  for (const ConfigError& error : parse_config(text, "f", &config)) lines.push_back(error.text());
  return lines;
}

PoolConfig read(const std::string& text) {
  PoolConfig config;
  const auto errors = parse_config(text, "f", &config);
  EXPECT_TRUE(errors.empty()) << errors[0].text();
  return config;
}

constexpr const char* kNight =
    "[[reservation]]\nname = \"night\"\ngpus = 4\ngpu_model = \"H200\"\nlabels = [\"rack=a\"]\n"
    "from = 2026-11-24T20:00:00+01:00\nuntil = 2026-11-25T08:00:00.5Z\n"
    "user = \"ann\"\nqueue = [\"q\"]\nexclusive = true\n[[queue]]\nname = \"q\"\n";

TEST(Reservations, are_read) {
  const PoolConfig config = read(kNight);
  ASSERT_EQ(config.reservations.size(), 1u);
  const ReservationConfig& night = config.reservations[0];
  EXPECT_EQ(night.is.gpus, 4u);
  EXPECT_EQ(night.is.require, (Requirements{.model = "H200", .labels = {"rack=a"}, .together = {}}));
  EXPECT_EQ(night.is.until_ms - night.is.from_ms, 13 * 3'600'000u + 500);
  EXPECT_EQ(time_text(night.is.from_ms), "2026-11-24 19:00:00 UTC");
  EXPECT_EQ(night.users, Lines{"ann"});
  EXPECT_EQ(night.queues, Lines{"q"});
  EXPECT_TRUE(night.is.exclusive);
  EXPECT_EQ(to_text(night),
            "4 GPUs (model H200, label rack=a) from 2026-11-24 19:00:00 UTC until 2026-11-25 08:00:00 UTC, user ann, "
            "queue q, exclusive");
  EXPECT_EQ(compare(PoolConfig(), config).now.at(1), "reservation night: none -> " + to_text(night));
}

TEST(Reservations, without_an_offset_are_by_the_clock_on_this_wall) {
  setenv("TZ", "EST5EDT", 1);
  tzset();
  const auto from = [](const std::string& day) {
    const PoolConfig config =
        read("[[reservation]]\nname = \"a\"\ngpus = 1\nfrom = " + day + "T12:00:00\nuntil = 2030-01-01T00:00:00Z\n");
    return config.reservations.at(0).is.from_ms;
  };
  EXPECT_EQ(time_text(from("2026-01-15")), "2026-01-15 17:00:00 UTC");
  EXPECT_EQ(time_text(from("2026-07-15")), "2026-07-15 16:00:00 UTC") << "in summer";
  unsetenv("TZ");
  tzset();
}

TEST(Reservations, have_errors_all_at_once_with_line_and_column) {
  EXPECT_EQ(
      errors_of("[[reservation]]\nname = \"a b\"\ngpus = 0.5\nfrom = \"today\"\nuntil = 2026-11-25\n"
                "labels = [\"rack\"]\nuser = []\nexclusive = 1\nuntl = 3\nqueue = \"nobody\"\n"),
      (Lines{"f:2:8: 'a b' is no name of 1 to 63 letters, digits, '-', '_' and '.'; write name = \"night\"",
             "f:3:8: 'gpus' of a reservation is a whole number from 1 to 1000000; write gpus = 4; jobs with parts "
             "of a GPU may share what is reserved",
             "f:4:8: 'from' must be a date with a time; write from = 2026-11-24T20:00:00Z, without quotes",
             "f:5:9: 'until' needs a time of day, too; write until = 2026-11-24T20:00:00Z, without quotes",
             "f:6:11: 'rack' is no label; write labels = [\"rack=a\"]",
             "f:7:8: nobody could use it: 'user' is an empty list; name some, or leave it out: then everybody may",
             "f:8:13: 'exclusive' must be true or false; write exclusive = true",
             "f:9:1: unknown key 'untl' in [[reservation]]; known here: name, gpus, gpu_model, labels, from, until, "
             "user, queue, exclusive",
             "f:10:9: there is no queue 'nobody' for reservation 'a b'; write a [[queue]] with that name, or "
             "another one's"}));
  EXPECT_EQ(errors_of("[[reservation]]\ngpus = 1\n").size(), 3u) << "name, from and until are missing";
  EXPECT_EQ(errors_of("[[reservation]]\nname = \"a\"\ngpus = 1\nfrom = 2026-11-24T20:00:00Z\n"
                      "until = 2026-11-24T20:00:00Z\n"),
            (Lines{"f:5:9: reservation 'a' ends before it begins; write a later 'until', or an earlier 'from'"}));
  const std::string one =
      "[[reservation]]\nname = \"a\"\ngpus = 1\nfrom = 2026-11-24T20:00:00Z\nuntil = 2026-11-25T20:00:00Z\n";
  EXPECT_EQ(errors_of(one + one), (Lines{"f:7:8: there are two reservations 'a'; the other one is in line 2"}));
  EXPECT_EQ(errors_of("[reservation]\nname = \"a\"\n"),
            (Lines{"f:1:1: 'reservation' must be a list of tables; write [[reservation]] on a line of its own"}));
}

TEST(Models, are_read_in_a_queue) {
  const PoolConfig config = read(
      "[[queue]]\nname = \"a\"\nquota = 6\nmodels = { H200 = { quota = 4, limit = 8 }, \"A100 80GB\" = { limit = 2 } "
      "}\n");
  const auto& models = config.queues.at(0).models;
  ASSERT_EQ(models.size(), 2u);
  const auto& h200 = models[0].model == "H200" ? models[0] : models[1];
  EXPECT_EQ(h200.quota, 4u);
  EXPECT_EQ(h200.limit, std::optional<uint32_t>(8));
  EXPECT_EQ(make_tree(config.queues).queues.at(0).models.size(), 2u);
}

TEST(Models, have_errors_all_at_once_with_line_and_column) {
  EXPECT_EQ(
      errors_of("[[queue]]\nname = \"p\"\nquota = 4\nmodels = { H200 = { quota = 3, limit = 2 } }\n"
                "[[queue]]\nname = \"a\"\nparent = \"p\"\nquota = 4\n"
                "models = { h200 = { quota = 4 }, \"-\" = {}, A100 = 3, L40 = { quota = 0.5, lim = 1 } }\n"
                "[[queue]]\nname = \"b\"\nquota = 1\nmodels = { H200 = { quota = 2 } }\n"
                "[[queue]]\nname = \"c\"\nmodels = 4\n"),
      (Lines{"f:4:40: the limit of queue 'p' for model H200 is below its quota of 3 GPUs; write limit = 3 or "
             "more, or a smaller quota",
             "f:9:29: the quotas of the queues in 'p' for model h200 are 4 GPUs together, its own is 3 GPUs; "
             "write models = { \"h200\" = { quota = 4 } } for 'p', or less for its children",
             "f:9:34: '-' are no words of a GPU's name; write models = { H200 = { quota = 4, limit = 8 } }",
             "f:9:51: what is said of model A100 must be a table; write models = { H200 = { quota = 4, limit = 8 } "
             "}",
             "f:9:70: the quota of a model is a whole number of GPUs from 0 to 1000000; write quota = 4",
             "f:9:75: unknown key 'lim' of model L40; known here: quota, limit",
             "f:12:9: the quotas of queue 'b' for models are 2 GPUs together, its own is 1 GPU, and they are part "
             "of it; write quota = 2 or more",
             "f:16:10: 'models' must be a table; write models = { H200 = { quota = 4, limit = 8 } }"}));
  EXPECT_EQ(errors_of("[[queue]]\nname = \"a\"\nquota = 4\n"
                      "models = { H200 = { quota = 4 }, \"h200 NVL\" = { quota = 3 } }\n"),
            Lines{})
      << "the one is part of the other";
}

State with_reservations(const std::string& text, std::vector<Reservation> reservations) {
  State state = parse_state(text);
  state.now_ms = 1000;
  state.reservations = std::move(reservations);
  for (JobView& job : state.jobs) {
    job.places.resize(job.vgpus);
    if (job.id[0] == 'R') job.reservation = "r";
  }
  return state;
}

TEST(Reservations, are_the_same_for_a_planner) {
  for (const uint64_t from_ms : {500, 2000}) {
    const State state = with_reservations("2+2 gpus; A n4 on 0,1,2,3; B n2 min2; R n2 min2; Rb n1 part500",
                                          {{.name = "r", .gpus = 3, .from_ms = from_ms, .until_ms = 9000}});
    Planner planner(state);
    for (const JobView& job : state.jobs) planner.put(job);
    Assignment told = assign(state);
    for (const Planner::Change& change : planner.decide()) {
      EXPECT_EQ(change.decision.places, told.at(change.id).places) << change.id;
      EXPECT_EQ(change.decision.running, told.at(change.id).running) << change.id;
    }
    for (const JobView& job : state.jobs) EXPECT_EQ(planner.why(job.id), told.at(job.id).reason);
    EXPECT_TRUE(planner.decide().empty() || from_ms == 500) << "nothing is new";
  }
}

TEST(Reservations, are_why_a_job_waits) {
  const Reservation now{.name = "r", .gpus = 2, .from_ms = 500, .until_ms = 9000};
  const Reservation later{.name = "r", .gpus = 2, .from_ms = 5000, .until_ms = 9000};
  const auto why = [](const State& state, const char* id) {
    const auto found = why_waits(state, id);
    return found ? found->reason : "";
  };
  EXPECT_EQ(why(with_reservations("2 gpus; R n2", {later}), "R"),
            "waits until 1970-01-01 00:00:05 UTC, when its reservation 'r' begins");
  EXPECT_EQ(why(with_reservations("2 gpus; R n2 min2 on 0,1; A n2 min2", {now}), "A"), "") << "it would wait anyway";
  EXPECT_EQ(why(with_reservations("2 gpus; R n1 on 0; Rb n1; A n1", {now}), "A"), "") << "so it is for who came later";
  EXPECT_EQ(why(with_reservations("2 gpus; A n1; R n2", {now}), "A"),
            "waits because of reservations: 'r' keeps 2 GPUs until 1970-01-01 00:00:09 UTC");
}

TEST(Reservations, are_for_whom_the_file_says) {
  Ledger ledger;
  configure(&ledger, read(kNight));
  State state;
  JobRecord job;
  JobView view;
  const auto error = [&](uint64_t now_ms) { return may_use_reservation(ledger, state, view, job, now_ms).message(); };
  EXPECT_EQ(error(1), "");
  job.reservation = "day";
  EXPECT_EQ(error(1), "there is no reservation 'day'; there are night");
  job.reservation = "night";
  job.user = "bob";
  job.queue = "other";
  EXPECT_EQ(error(1),
            "reservation 'night' is for user ann, and jobs in queue q; this job is of user bob, in queue other");
  job.queue = "q";
  EXPECT_EQ(error(1), "");
  view.vgpus = 8;
  EXPECT_EQ(
      error(1),
      "reservation 'night' has 4 GPUs; -g 8 asks for more. Use -g 4, or --min 4 to let 8 virtual GPUs share them");
  EXPECT_EQ(error(UINT64_MAX), "reservation 'night' is over since 2026-11-25 08:00:00 UTC; leave --reservation out");
}

TEST(Models, are_why_a_job_can_never_run) {
  Queues queues;
  queues.configure(read("[[queue]]\nname = \"a\"\nmodels = { H200 = { limit = 2 } }\n[[queue]]\nname = \"b\"\n").queues,
                   {});
  const State state = parse_state("2+4 gpus s0:A100 s1:H200");
  JobView job;
  job.vgpus = job.min_gpus = 5;
  EXPECT_EQ(queues.why_never(state, job, "a", true),
            "queue 'a' has a limit of 2 GPUs of model H200, and the pool has 2 others for it; --min 5 asks for more");
  EXPECT_EQ(queues.why_never(state, job, "b", true), "");
  job.vgpus = job.min_gpus = 4;
  EXPECT_EQ(queues.why_never(state, job, "a", true), "");
  job.require.model = "H200";
  EXPECT_NE(queues.why_never(state, job, "a", true), "");
}

// Pools by chance: whatever is asked, it comes to rest, no queue is on more GPUs of a model than its limit, nobody has
// a GPU that somebody else has, and those of an exclusive reservation are left to its jobs.
class Chance {
 public:
  explicit Chance(uint64_t seed) : dice_(seed * 7919 + 1) {
    state_ = parse_state("3+3+2 gpus s0:A100 s1:H200 s2:H200 s2:rack=b");
    std::vector<QueueConfig> queues(4);
    for (size_t q = 0; q < queues.size(); ++q) {
      queues[q].name = std::string(1, char('a' + q));
      queues[q].quota = roll(6);
      queues[q].preemptible = queues[q].quota == 0 || roll(4) != 0;
      if (roll(2) == 0) queues[q].models.push_back({.model = roll(2) == 0 ? "H200" : "A100"});
      if (queues[q].models.empty()) continue;
      queues[q].models[0].quota = roll(uint32_t(queues[q].quota) + 1);
      if (roll(2) == 0) queues[q].models[0].limit = queues[q].models[0].quota + roll(3);
    }
    if (seed % 2 == 0) state_.queues = make_tree(queues);
    state_.used.assign(state_.queues.queues.size(), 0);
    for (uint32_t r = 0; r < roll(3); ++r) {
      Reservation reservation{.name = "r" + std::to_string(r),
                              .gpus = 1 + roll(4),
                              .from_ms = 10 + roll(3) * 10,
                              .until_ms = 50 + roll(2) * 20,
                              .exclusive = roll(2) == 0};
      if (roll(3) == 0) reservation.require.model = "H200";
      state_.reservations.push_back(reservation);
    }
  }

  void play() {
    for (state_.now_ms = 5; state_.now_ms < 90; state_.now_ms += 5) {
      for (uint32_t i = 0; i < roll(3); ++i) arrive();
      if (roll(2) == 0 && !state_.jobs.empty())
        state_.jobs.erase(state_.jobs.begin() + roll(uint32_t(state_.jobs.size())));
      int rounds = 0;
      while (round()) ASSERT_LT(++rounds, 60) << "it does not come to rest at " << state_.now_ms;
    }
  }

 private:
  uint32_t roll(uint32_t sides) {
    dice_ = dice_ * 6364136223846793005ull + 1442695040888963407ull;
    return uint32_t(dice_ >> 33) % sides;
  }

  void arrive() {
    JobView job;
    job.id = std::to_string(++jobs_);
    job.vgpus = 1 + roll(5);
    const bool queues = !state_.queues.empty();  // in which all need as much: others are other tests' business
    job.min_gpus = queues ? 1 : 1 + roll(job.vgpus);
    if (!queues && job.vgpus == 1 && roll(2) == 0) job.part = 250 * (1 + roll(3));
    if (roll(3) == 0) job.require.model = roll(2) == 0 ? "H200" : "A100";
    if (roll(3) == 0 && !state_.reservations.empty())
      job.reservation = state_.reservations[roll(uint32_t(state_.reservations.size()))].name;
    if (queues) job.queue = int32_t(roll(4));
    if (queues) job.preemptible = state_.queues.queues[size_t(job.queue)].preemptible;
    job.places.resize(job.vgpus);
    state_.jobs.push_back(job);
  }

  // Whether anything has changed. Who is suspended is parked at once; who goes where somebody still is waits.
  bool round() {
    const Assignment answer = assign(state_);
    bool changed = false;
    std::map<GpuId, std::map<std::string, uint32_t>> on;
    for (JobView& job : state_.jobs) {
      const Decision& decision = answer.at(job.id);
      changed |= decision.running != job.running || (decision.running && decision.places != job.places);
      if (job.running && !decision.running) {
        EXPECT_TRUE(job.preemptible) << job.id;
        for (GpuId& place : job.places) place.index = kParked;
      }
      job.running = decision.running;
      if (decision.running) job.places = decision.places;
      for (const GpuId& place : job.places) {
        if (place.on_gpu()) on[place][job.id] = job.part;
      }
    }
    for (const auto& [gpu, jobs] : on) {
      uint32_t all = 0;
      for (const auto& [id, part] : jobs) all += part;
      EXPECT_LE(all, kWholeGpu) << to_text(gpu) << " at " << state_.now_ms;
    }
    check_limits();
    return changed;
  }

  // Of what runs outside of reservations; a job that came out of one keeps what it has.
  void check_limits() {
    State ordinary = state_;
    const bool any_over = std::any_of(state_.reservations.begin(), state_.reservations.end(),
                                      [&](const Reservation& each) { return each.over(state_.now_ms); });
    std::erase_if(ordinary.jobs, [](const JobView& job) { return !job.reservation.empty(); });
    if (any_over) return;
    for (size_t q = 0; q < state_.queues.queues.size(); ++q) {
      for (const ModelQuota& model : state_.queues.queues[q].models) {
        const int64_t most = model.limit ? int64_t(*model.limit) : INT64_MAX;
        EXPECT_LE(held_of(ordinary, int32_t(q), model.model), most) << "at " << state_.now_ms;
      }
    }
  }

  uint64_t dice_;
  State state_;
  uint32_t jobs_ = 0;
};

TEST(Reservations, and_models_come_to_rest_by_chance) {
  for (uint64_t seed = 0; seed < 300 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Chance(seed).play();
  }
}

}  // namespace
}  // namespace tide::sched
