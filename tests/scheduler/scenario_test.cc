// Stories of pools, told in scenarios/*.txt (README there): servers, queues and jobs, and what becomes of them. Each is
// played through the policy and the plan until nothing happens any more, with what must always hold looked at in every
// step; then five more rounds must do nothing.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/log.h"
#include "scheduler/expect.h"
#include "scheduler/invariants.h"
#include "scheduler/line.h"
#include "scheduler/models.h"
#include "scheduler/plan.h"
#include "scheduler/promises.h"
#include "scheduler/queues.h"
#include "tests/scheduler/queue_text.h"

#ifndef TIDE_SOURCE_ROOT
#define TIDE_SOURCE_ROOT "."
#endif

namespace tide::sched {
namespace {

constexpr int kRoundsMax = 100;
constexpr int kIdleRounds = 5;

struct Line {
  std::string place;  // "jobs.txt:12"
  std::string text;
};

struct Story {
  std::string title;
  std::vector<Line> lines;
};

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Titles stand at the margin, what belongs to them is indented.
std::vector<Story> read_stories(const std::filesystem::path& path) {
  std::vector<Story> stories;
  std::ifstream in(path);
  size_t number = 0;
  for (std::string text; std::getline(in, text);) {
    ++number;
    if (const size_t comment = text.find('#'); comment != std::string::npos) text.resize(comment);
    if (trimmed(text).empty()) continue;
    const std::string place = path.filename().string() + ":" + std::to_string(number);
    if (text[0] != ' ') {
      stories.push_back({place + " " + trimmed(text), {}});
    } else if (!stories.empty()) {
      stories.back().lines.push_back({place, trimmed(text)});
    }
  }
  return stories;
}

std::pair<std::string, std::string> first_word(const std::string& text) {
  const size_t end = text.find(' ');
  return {text.substr(0, end), end == std::string::npos ? "" : trimmed(text.substr(end))};
}

class Player {
 public:
  void play(const Story& story) {
    for (const Line& line : story.lines) {
      SCOPED_TRACE(line.place + " " + line.text);
      const auto [word, rest] = first_word(line.text);
      if (word == "gpus") {
        parse_gpus(with_unit(rest), &state_);
      } else if (word == "order") {
        preempts_ = rest == "estimates preempt";
        EXPECT_TRUE(rest == "estimates" || rest == "submission" || preempts_) << rest;
        by_estimates_ = rest != "submission";
      } else if (word == "queue") {
        queues_.push_back(parse_queue(rest));
      } else if (word == "reservation") {
        reserve(rest);
      } else if (word == "job") {
        add_job(rest);
      } else if (word == "then") {
        settle();
        happen(rest);
      } else if (word == "expect") {
        settle();
        for (const std::string& each : split(rest, ';')) expect(trimmed(each));
      } else {
        ADD_FAILURE() << "'" << word << "' is no word of a story";
      }
      if (broken_) return;
    }
  }

 private:
  // "2+2 sick0" -> "2+2 gpus sick0".
  static std::string with_unit(const std::string& text) {
    const auto [counts, rest] = first_word(text);
    return counts + " gpus " + rest;
  }

  // "R 4 from 100 until 200 exclusive needs:H200", in seconds; 0 is when the story begins.
  void reserve(const std::string& text) {
    Reservation reservation;
    std::istringstream in(text);
    in >> reservation.name >> reservation.gpus;
    for (std::string word; in >> word;) {
      uint64_t seconds = 0;
      if (word == "exclusive") {
        reservation.exclusive = true;
      } else if (word == "from" || word == "until") {
        in >> seconds;
        (word == "from" ? reservation.from_ms : reservation.until_ms) = kBeginMs + seconds * 1000;
      } else if (word.rfind("needs:", 0) == 0) {
        parse_needs(word.substr(6), &reservation.require);
      } else {
        ADD_FAILURE() << "'" << word << "' is no word of a reservation";
      }
    }
    state_.reservations.push_back(reservation);
    settled_ = false;
  }

  void prepare() {
    if (state_.now_ms == 0) state_.now_ms = kBeginMs;
    if (!queues_.empty() && state_.queues.empty()) {
      std::vector<QueueConfig> configs;
      for (const QueueText& queue : queues_) configs.push_back(queue.config);
      const auto errors = check_queues(configs, "story");
      EXPECT_TRUE(errors.empty()) << errors[0].text();
      state_.queues = make_tree(configs);
      state_.used.assign(queues_.size(), 0);
      for (const QueueText& queue : queues_) {
        const int32_t at = state_.queues.find(queue.config.name);
        if (queue.load.used > 0) state_.used[size_t(at)] = queue.load.used;
      }
    }
  }

  void add_job(const std::string& text) {
    prepare();
    std::string words, queue, reservation;
    std::istringstream in(text);
    for (std::string word; in >> word;) {
      if (word == "in") {
        in >> queue;
      } else if (word == "for") {
        in >> reservation;
      } else {
        words += (words.empty() ? "" : " ") + word;
      }
    }
    JobView job = parse_job(words, state_);
    job.places.resize(job.vgpus);
    job.reservation = reservation;
    if (!state_.queues.empty()) {
      const int32_t found = state_.queues.find(queue.empty() ? kDefaultQueue : queue);
      ASSERT_NE(found, kNoQueue) << "there is no queue " << queue;
      ASSERT_TRUE(state_.queues.queues[size_t(found)].leaf()) << queue;
      job.queue = found;
      job.preemptible = state_.queues.queues[size_t(found)].preemptible;
    }
    submitted_ms_[job.id] = state_.now_ms;
    reckon(&job);
    before_[job.id] = job.places;
    started_.insert(job.running ? job.id : "");
    state_.jobs.push_back(job);
    settled_ = false;
  }

  // What is expected of it, as far as its user has said so.
  void reckon(JobView* job) {
    if (job->estimate_ms == 0) return;
    job->left_ms = expected_of({}, {}, job->estimate_ms, job->useful_ms).left_ms;
    if (by_estimates_ && (preempts_ || !job->running))
      job->place = place_of({}, submitted_ms_[job->id], job->left_ms, job->vgpus);
    if (job->running && job->passes.empty()) job->ends_ms = end_if_started(*job, state_.now_ms);
  }

  JobView* job(const std::string& id) {
    const auto found =
        std::find_if(state_.jobs.begin(), state_.jobs.end(), [&](const JobView& j) { return j.id == id; });
    return found == state_.jobs.end() ? nullptr : &*found;
  }

  // "A ends", "job C n2", "A target2", "A suspended", "A resumed", "A spared", "A disturbable", "A ran 20", "it is
  // 250", "gpu 3 sick", "server 1 off".
  void happen(const std::string& text) {
    settled_ = false;
    remember();
    const auto [name, what] = first_word(text);
    if (name == "job") return add_job(what);
    if (name == "it") return pass(what);
    if (name == "reservation") return end_reservation(what);
    if (name == "gpu" || name == "server") return break_gpus(name, what);
    JobView* const who = job(name);
    ASSERT_NE(who, nullptr) << "there is no job " << name;
    double number = 0;
    if (what == "ends") {
      state_.jobs.erase(state_.jobs.begin() + (who - state_.jobs.data()));
    } else if (what == "suspended") {
      who->suspended = true;
    } else if (what == "resumed") {
      who->suspended = false;
    } else if (what == "spared" || what == "disturbable") {
      who->spared = what == "spared";
    } else if (number_behind(what, "ran ", &number)) {
      who->useful_ms = uint64_t(number * 1000);
      reckon(who);
    } else if (number_behind(what, "target", &number)) {
      who->target = uint32_t(number);
    } else {
      ADD_FAILURE() << "'" << what << "' happens to no job";
    }
  }

  // "is 250": so many seconds after the story began; clocks also go back.
  void pass(const std::string& text) {
    double seconds = 0;
    ASSERT_TRUE(number_behind(text, "is ", &seconds)) << text;
    state_.now_ms = kBeginMs + uint64_t(seconds * 1000);
    for (JobView& job : state_.jobs) job.overrun = !job.passes.empty() && job.ends_ms <= state_.now_ms;
  }

  // "R gone": it is taken out of the file.
  void end_reservation(const std::string& text) {
    const auto [name, what] = first_word(text);
    const size_t before = state_.reservations.size();
    std::erase_if(state_.reservations, [&, n = name](const Reservation& each) { return each.name == n; });
    EXPECT_EQ(state_.reservations.size() + (what == "gone" ? 1 : 0), before) << text;
  }

  void break_gpus(const std::string& kind, const std::string& text) {
    const auto [number, what] = first_word(text);
    for (size_t i = 0; i < state_.gpus.size(); ++i) {
      GpuView& gpu = state_.gpus[i];
      if (kind == "gpu" ? std::to_string(i) != number : gpu.id.server != "s" + number) continue;
      if (what == "sick" || what == "well") gpu.healthy = what == "well";
      if (what == "off" || what == "on") gpu.online = what == "on";
    }
  }

  // Where everybody is before something happens.
  void remember() {
    moves_ = 0;
    for (const JobView& job : state_.jobs) before_[job.id] = job.places;
  }

  // Rounds until nothing happens, and then some.
  void settle() {
    if (settled_) return;
    prepare();
    settled_ = true;
    check("at first");
    int rounds = 0;
    while (round()) {
      if (++rounds > kRoundsMax) fail("it does not come to rest");
      if (broken_) return;
    }
    for (int i = 0; i < kIdleRounds; ++i) {
      if (round()) fail("something happens in idle round " + std::to_string(i + 1));
    }
  }

  // One round of the reconciler, whose actions all succeed at once; whether anything happened.
  bool round() {
    State seen = state_;
    promises_ = keep_promises(&seen);
    if (preempts_) keep_line(&seen);
    wanted_ = assign(seen);
    if (const std::string wrong = what_is_wrong(seen, wanted_); !wrong.empty()) fail(wrong);
    bool happened = admit();
    std::vector<Present> present;
    std::map<GpuId, uint64_t> memory;
    for (const GpuView& gpu : state_.gpus) memory[gpu.id] = gpu.memory_bytes;
    for (const JobView& job : state_.jobs) {
      for (uint32_t v = 0; v < job.vgpus; ++v)
        present.push_back({.job = job.id, .vgpu = v, .at = job.places[v], .to = {}, .portion = job.portion()});
    }
    for (const Action& action : plan(present, wanted_, [&](const GpuId& gpu) { return memory.at(gpu); })) {
      happened = true;
      if (!action.ready || !alive(action)) continue;
      JobView& who = *job(action.job);
      if (who.suspended && action.from.on_gpu()) who.keeps.insert(action.from);
      who.places[action.vgpu] = action.to;
      moves_ += action.kind == Action::Kind::kMove && action.from.on_gpu() && action.to.on_gpu() ? 1 : 0;
      check(to_text(action));
    }
    for (JobView& each : state_.jobs) happened |= note_parked(&each);
    return happened;
  }

  // Actions of servers that do not answer are never done.
  bool alive(const Action& action) const {
    return std::all_of(state_.gpus.begin(), state_.gpus.end(), [&](const GpuView& gpu) {
      return gpu.online || (gpu.id.server != action.from.server && gpu.id.server != action.to.server);
    });
  }

  bool admit() {
    bool admitted = false;
    for (size_t i = 0; i < state_.jobs.size(); ++i) {
      JobView& job = state_.jobs[i];
      const Decision& decision = wanted_.at(job.id);
      if (decision.running == job.running || job.suspended) continue;
      admitted = true;
      if (!decision.running) {  // its GPUs are taken for others
        EXPECT_TRUE(job.preemptible) << job.id << " is suspended";
        job.suspended = true;
        taken_.insert(job.id);
        continue;
      }
      job.running = true;
      note_start(decision, state_.now_ms, &job);
      started_.insert(job.id);
      for (size_t k = 0; k < state_.jobs.size(); ++k) {
        JobView& other = state_.jobs[k];
        const bool before = std::pair(other.place, k) < std::pair(job.place, i);
        if (before && !other.running && !other.suspended) ++other.skipped;
      }
    }
    return admitted;
  }

  // All of it is parked: its GPUs are free, and it waits if nobody suspended it by hand.
  bool note_parked(JobView* job) {
    const bool parked = std::all_of(job->places.begin(), job->places.end(), [](const GpuId& p) { return p.parked(); });
    if (!job->suspended || !job->running || !parked) return false;
    job->running = job->overrun = false;
    job->keeps.clear();
    job->passes.clear();
    if (!preempts_) reckon(job);  // it keeps its place
    if (taken_.erase(job->id) != 0) job->suspended = false;
    return true;
  }

  // The story cannot go on.
  void fail(const std::string& why) {
    ADD_FAILURE() << why;
    broken_ = true;
  }

  // What must hold at any time.
  void check(const std::string& when) {
    std::map<GpuId, int64_t> held;  // thousandths
    for (const JobView& job : state_.jobs) {
      const std::set<GpuId> on(job.places.begin(), job.places.end());
      for (const GpuId& gpu : on) {
        if (gpu.on_gpu()) held[gpu] += job.part;
      }
    }
    for (const auto& [gpu, by] : held) {
      if (by > 1000) fail(to_text(gpu) + " is given twice, " + when);
    }
    if (state_.queues.empty()) return;
    std::vector<QueueLoad> loads(state_.queues.queues.size());
    for (const JobView& job : state_.jobs) {
      if (!is_reserved(job)) loads[size_t(job.queue)].allocated += held_by(job);
    }
    const QueueShares shares = fair_shares(state_.queues, loads, 0);
    for (size_t i = 0; i < shares.size(); ++i) {
      const Queue& queue = state_.queues.queues[i];
      const int64_t cap = queue.preemptible ? queue.limit : std::min(queue.limit, queue.quota);
      if (when == "at first" && shares[i].allocated > cap) beyond_.insert(i);  // the story begins so
      for (const ModelQuota& model : queue.models) {
        State ordinary = state_;
        std::erase_if(ordinary.jobs, [&](const JobView& job) { return is_reserved(job); });
        const int64_t on = held_of(ordinary, int32_t(i), model.model);
        if (when == "at first" && model.limit && on > int64_t(*model.limit)) beyond_.insert(i);
        if (model.limit && on > int64_t(*model.limit) && beyond_.count(i) == 0)
          fail(format("queue %s is on %ld of %s, ", queue.name.c_str(), long(on), model.model.c_str()) + when);
      }
      if (shares[i].allocated > cap && beyond_.count(i) == 0)
        fail(format("queue %s has %ld of %ld, ", queue.name.c_str(), long(shares[i].allocated), long(cap)) + when);
    }
  }

  // What it has counts for its reservation, and not for its queue.
  bool is_reserved(const JobView& job) const {
    return std::any_of(state_.reservations.begin(), state_.reservations.end(), [&](const Reservation& each) {
      return each.name == job.reservation && each.lasts(state_.now_ms);
    });
  }

  // Numbers of the GPUs that it is on.
  std::set<std::string> gpus_of(const JobView& job) const {
    std::set<std::string> numbers;
    for (size_t g = 0; g < state_.gpus.size(); ++g) {
      if (std::count(job.places.begin(), job.places.end(), state_.gpus[g].id) != 0) numbers.insert(std::to_string(g));
    }
    return numbers;
  }

  std::string state_text(const JobView& job) const {
    std::string text;
    for (const std::string& gpu : gpus_of(job)) text += (text.empty() ? "on " : ",") + gpu;
    if (text.empty()) text = started_.count(job.id) != 0 ? "suspended" : "waits";
    return text + " (" + wanted_.at(job.id).reason + ")";
  }

  void expect_reason(const JobView& who, const std::string& text) {
    const QueueReason queue = why_queue_waits(state_, who);
    const std::string reason = queue.reason.empty() ? wanted_.at(who.id).reason : queue.reason;
    EXPECT_NE(reason.find(text), std::string::npos) << who.id << " waits because " << reason;
  }

  void expect_placed(const JobView& who, const std::string& what, const std::string& rest) {
    const std::set<std::string> gpus = gpus_of(who);
    std::set<std::string> servers;
    for (const GpuId& place : who.places) servers.insert(place.server);
    bool is = false;
    if (what == "runs") is = !gpus.empty();
    if (what == "has") is = std::to_string(gpus.size()) == rest;
    if (what == "on") {
      const auto wanted = split(rest, ',');
      is = gpus == std::set<std::string>(wanted.begin(), wanted.end());
    }
    if (what == "avoids") is = !gpus.empty() && gpus.count(rest) == 0;
    if (what == "stays") is = !gpus.empty() && who.places == before_[who.id];
    if (what == "together") is = !gpus.empty() && servers.size() == 1;
    if (what == "at") is = !gpus.empty() && servers == std::set<std::string>{"s" + rest};
    if (what == "waits") is = gpus.empty() && started_.count(who.id) == 0;
    if (what == "suspended") is = gpus.empty() && started_.count(who.id) != 0;
    EXPECT_TRUE(is) << who.id << " is " << state_text(who);
  }

  // "A kept" (its deadline can be), "A late", "A unpromised", "A needs 2" (GPUs, by its deadline; 0: it may wait).
  void expect_promise(const std::string& id, const std::string& what, const std::string& count) {
    const auto found = promises_.jobs.find(id);
    const bool counts = found != promises_.jobs.end();
    EXPECT_EQ(counts, what != "unpromised") << id;
    if (!counts) return;
    if (what != "needs") {
      EXPECT_EQ(found->second.kept, what == "kept") << id;
    } else {
      EXPECT_EQ(std::to_string(found->second.gpus), count) << id << " needs so many GPUs";
    }
  }

  // "A has 2", "B waits because TEXT", "free 1", "moves 0", "A beside B", "A as B" (as many GPUs).
  void expect(const std::string& text) {
    const auto [name, rest] = first_word(text);
    if (name == "free") {
      std::set<std::string> held;
      for (const JobView& job : state_.jobs) held.merge(gpus_of(job));
      EXPECT_EQ(std::to_string(state_.gpus.size() - held.size()), rest) << "GPUs are free";
      return;
    }
    if (name == "moves") {
      EXPECT_EQ(std::to_string(moves_), rest) << "moves";
      return;
    }
    JobView* const who = job(name);
    ASSERT_NE(who, nullptr) << "there is no job " << name;
    const auto [what, more] = first_word(rest);
    if (what == "kept" || what == "late" || what == "unpromised" || what == "needs")
      return expect_promise(name, what, more);
    if (what == "beside" || what == "as") {
      const JobView* const other = job(more);
      ASSERT_NE(other, nullptr) << "there is no job " << more;
      const auto mine = gpus_of(*who), theirs = gpus_of(*other);
      EXPECT_TRUE(what == "beside" ? mine == theirs : mine.size() == theirs.size()) << state_text(*who);
      return;
    }
    static const std::set<std::string> kStates{"runs", "has",      "on",    "avoids",   "stays",
                                               "at",   "together", "waits", "suspended"};
    ASSERT_EQ(kStates.count(what), 1u) << "'" << what << "' is nothing to expect";
    expect_placed(*who, what, more);
    if ((what == "waits" || what == "suspended") && more.rfind("because ", 0) == 0) expect_reason(*who, more.substr(8));
  }

  State state_;
  std::vector<QueueText> queues_;
  Assignment wanted_;
  Promises promises_;
  std::map<std::string, std::vector<GpuId>> before_;
  std::set<std::string> started_;  // have run
  std::set<std::string> taken_;    // are being suspended for others
  std::set<size_t> beyond_;        // queues that had more than they may when the story began
  std::map<std::string, uint64_t> submitted_ms_;
  bool by_estimates_ = false, preempts_ = false;
  int moves_ = 0;
  bool settled_ = false, broken_ = false;
};

class Scenarios : public testing::TestWithParam<std::string> {};

TEST_P(Scenarios, come_out_as_they_are_told) {
  const std::vector<Story> stories = read_stories(std::filesystem::path(TIDE_SOURCE_ROOT) / GetParam());
  ASSERT_FALSE(stories.empty());
  for (const Story& story : stories) {
    SCOPED_TRACE(story.title);
    const bool expects = std::any_of(story.lines.begin(), story.lines.end(),
                                     [](const Line& line) { return line.text.rfind("expect ", 0) == 0; });
    EXPECT_TRUE(expects) << "nothing is expected of it";
    Player().play(story);
  }
  printf("%zu scenarios\n", stories.size());
}

std::vector<std::string> files() {
  std::vector<std::string> names;
  const std::string folder = "tests/scheduler/scenarios";
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(TIDE_SOURCE_ROOT) / folder)) {
    if (entry.path().extension() == ".txt") names.push_back(folder + "/" + entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(ScenarioFiles, tell_at_least_300_stories) {
  std::set<std::string> told;  // the same one twice counts once
  for (const std::string& name : files()) {
    for (const Story& story : read_stories(std::filesystem::path(TIDE_SOURCE_ROOT) / name)) {
      std::string text;
      for (const Line& line : story.lines) text += line.text + "\n";
      told.insert(text);
    }
  }
  printf("%zu scenarios in all\n", told.size());
  EXPECT_GE(told.size(), 300u);
}

INSTANTIATE_TEST_SUITE_P(Pool, Scenarios, testing::ValuesIn(files()),
                         [](const auto& info) { return std::filesystem::path(info.param).stem().string(); });

}  // namespace
}  // namespace tide::sched
