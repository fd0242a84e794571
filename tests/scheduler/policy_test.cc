#include "scheduler/policy.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/scheduler/policy_text.h"

namespace tide::sched {
namespace {

struct Row {
  const char* what;
  const char* state;
  const char* answer;
};

constexpr Row kRows[] = {
    {"a job starts with all it asks for", "4 gpus; A n4", "A 0,1,2,3"},
    {"a job stays on one server where it fits", "2+3 gpus; A n3", "A 2,3,4"},
    {"the tightest server that has room", "4+2 gpus; A n2", "A 4,5"},
    {"an arrival shrinks who is above its minimum", "4 gpus; A n4 min1 on 0,1,2,3; B n2", "A 0,1,0,1; B 2,3"},
    {"equal shares, the odd one to the older", "5 gpus; A n5 on 0,1,2,3,4; B n4", "A 0,1,2,0,1; B 3,4,3,4"},
    {"a minimum is kept", "4 gpus; A n4 min3 on 0,1,2,3; B n2", "A 0,1,2,0; B 3,3"},
    {"who needs all its GPUs gives none", "4 gpus; A n4 min4 on 0,1,2,3; B n1", "A 0,1,2,3; B waits"},
    {"an arrival with a minimum gets it", "4 gpus; A n4 on 0,1,2,3; B n3 min3", "A 0,0,0,0; B 1,2,3"},
    {"free GPUs are used before others shrink", "4 gpus; A n2 on 0,1; B n2", "A 0,1; B 2,3"},
    {"the largest shrinks first", "6 gpus; A n4 on 0,1,2,3; B n2 on 4,5; C n1", "A 0,1,2,0; B 4,5; C 3"},
    {"who was shrunk grows when GPUs are free", "4 gpus; A n4 on 0,1,0,1", "A 0,1,2,3"},
    {"the oldest grows first", "3 gpus; A n2 on 0,0; B n2 on 1,1", "A 0,2; B 1,1"},
    {"a target caps", "4 gpus; A n4 t1 on 0,1,2,3", "A 0,0,0,0"},
    {"a target caps growing too", "4 gpus; A n4 t2 on 0,0,0,0", "A 0,0,1,1"},
    {"what a target leaves free goes to others", "4 gpus; A n4 t1 on 0,0,0,0; B n3 on 1,1,1", "A 0,0,0,0; B 1,2,3"},
    {"more vGPUs than GPUs share evenly", "3 gpus; A n7", "A 0,1,2,0,1,2,0"},
    {"the head is not passed by who could share", "4 gpus; A n4 min2 on 0,1,2,3; B n2 min2; C n1",
     "A 0,1,0,1; B 2,3; C waits"},
    {"who fits passes a head that cannot start anyway", "4 gpus; A n3 min3 on 0,1,2; B n2 min2; C n1",
     "A 0,1,2; B waits; C 3"},
    {"but not for ever", "4 gpus; A n3 min3 on 0,1,2; B n2 min2 skip16; C n1", "A 0,1,2; B waits; C waits"},
    {"who can never start does not block for ever", "2 gpus; B n3 min3 skip16; C n1", "B waits; C 0"},
    {"a sick GPU takes nothing new", "3 gpus sick0; A n3", "A 1,2,1"},
    {"and is left", "3 gpus sick0; A n2 on 0,1", "A 2,1"},
    {"alone on a sick GPU a job stays there", "1 gpus sick0; A n1 on 0", "A 0"},
    {"nothing changes for a job whose server is away", "2+2 gpus off2 off3; A n4 on 0,1,2,3; B n1",
     "A 0,1,2,3; B waits"},
    {"an absent server's GPUs are not used", "2+2 gpus off2 off3; A n4", "A 0,1,0,1"},
    {"a lost place is made good", "4 gpus; A n2 on -,1", "A 0,1"},
    {"given memory must fit", "4 gpus; A n4 mem8 t1 on 0,1,2,3", "A 0,1,0,1"},
    {"an arrival leaves others the GPUs that their memory needs", "4 gpus; A n4 mem8 on 0,1,2,3; B n4 mem16",
     "A 0,1,2,3; B waits"},
    {"and gets what is left", "4 gpus; A n4 mem8 on 0,1,2,3; B n2 mem16", "A 0,1,0,1; B 2,3"},
    {"a small GPU is passed over", "3 gpus small0; A n2 mem16", "A 1,2"},
    {"memory that was not chosen may be shared", "2 gpus; A n4", "A 0,1,0,1"},
    {"what somebody chose by hand stays", "4 gpus; A n3 pinned t2 on 3,3,1", "A 3,3,1"},
    {"until the count must change", "4 gpus; A n3 pinned t3 on 3,3,1", "A 3,0,1"},
    {"growing takes the near ones", "2+2 gpus; A n2 on 2,2; B n1 on 0", "A 2,3; B 0"},
    {"shrinking leaves the server with fewer", "2+2 gpus; A n3 t2 on 0,1,2", "A 0,1,0"},
    {"two arrivals at once", "4 gpus; A n4 on 0,1,2,3; B n1; C n1", "A 0,1,0,1; B 2; C 3"},
    {"no GPU at all", "0 gpus; A n1", "A waits"},
    {"who shall be suspended goes where its server keeps it", "1+1 gpus; A n2 suspended on 0,1", "A p0,p1"},
    {"its GPUs are nobody's while one of its vGPUs is left", "2 gpus; A n2 suspended keeps0 on p0,1; B n2",
     "A p0,p0; B waits"},
    {"and others' when all are parked", "2 gpus; A n2 suspended on p0,p0; B n2", "A p0,p0; B 0,1"},
    {"and stay so", "2 gpus; A n2 min2 suspended waiting on p0,p0; B n2", "A waits; B 0,1"},
    {"another server keeps what its own cannot", "1+1 gpus; A n1 suspended refused0 on 0", "A p1"},
    {"one that answers", "1+1+1 gpus off1; A n1 suspended refused0 on 0", "A p2"},
    {"where none can, it stays", "1+1 gpus; A n1 suspended refused0 refused1 on 0", "A 0"},
    {"and after three it is given up", "1+1+1+1 gpus; A n1 suspended refused0 refused1 refused2 on 0", "A 0"},
    {"a server that is away may come back", "1+1 gpus off0; A n1 suspended on 0", "A p0"},
    {"a suspended job has nobody wait for it", "2 gpus; A n2 min2 suspended skip16 waiting on p0,p0; B n1",
     "A waits; B 0"},
    {"who is resumed gets what is beyond others' minima", "2 gpus; A n2 on 0,1; B n1 waiting on p0", "A 0,0; B 1"},
    {"but not their minima", "2 gpus; A n2 min2 on 0,1; B n1 waiting on p0", "A 0,1; B waits"},
    {"before those that came later", "2 gpus; A n2 min2 waiting on p0,p0; B n1", "A 0,1; B waits"},
    {"after those that came before", "2 gpus; A n2 min2; B n1 waiting on p0", "A 0,1; B waits"},
    {"it is passed sixteen times", "2 gpus; A n1 on 0; B n2 min2 waiting skip15 on p0,p0; C n1", "A 0; B waits; C 1"},
    {"and then not any more", "2 gpus; A n1 on 0; B n2 min2 waiting skip16 on p0,p0; C n1", "A 0; B waits; C waits"},
    {"it goes to the server that keeps it", "2+2 gpus; A n1 waiting on p1", "A 2"},
    {"each vGPU does", "1+1 gpus; A n2 waiting on p1,p0", "A 1,0"},
    {"or to another one", "1+1 gpus; A n1 on 0; B n1 waiting on p0", "A 0; B 1"},
    {"not where that has just failed", "1+1 gpus; A n1 waiting failed0 on p0", "A 1"},
    {"and where only such a server has room it waits and passes others",
     "1+1 gpus; A n1 on 1; B n1 waiting skip16 failed0 on p0; C n1", "A 1; B waits; C 0"},
    {"it keeps nobody small meanwhile", "2 gpus; A n2 on 0,1; B n1 waiting failed0 on p0", "A 0,1; B waits"},
    {"it waits for a server that is away", "1+1 gpus off0; A n1 waiting on p0; B n1", "A waits; B 1"},
    {"what has come half-way goes on", "2 gpus; A n2 on 0,p0", "A 0,1"},
    {"two halves share a GPU", "2 gpus; A part500; B part500; C part500", "A 0; B 0; C 1"},
    {"three never do", "1 gpus; A part500; B part500; C part500", "A 0; B 0; C waits"},
    {"a part lies where it leaves the least over", "3 gpus; A part500 on 0; B part250 on 1; C part500",
     "A 0; B 1; C 0"},
    {"also when that came later", "3 gpus; A part250 on 0; B part500 on 1; C part500", "A 0; B 1; C 1"},
    {"where no GPU has so much left it takes another", "2 gpus; A part500 on 0; B part750", "A 0; B 1"},
    {"or waits", "1 gpus; A part500 on 0; B part750; C part500", "A 0; B waits; C 0"},
    {"memory that was given must fit beside the others'",
     "1 gpus; A part250 mem12 on 0; B part250 mem8; C part250 mem4", "A 0; B waits; C 0"},
    {"and beside memory that goes by the part", "1 gpus; A part500 mem12 on 0; B part500", "A 0; B waits"},
    {"a small GPU is full sooner", "2 gpus small0; A part500 mem8 on 0; B part500", "A 0; B 1"},
    {"who has a whole GPU shares it with nobody", "2 gpus; A part250 on 0; B n1; C n1", "A 0; B 1; C waits"},
    {"nor do others share it", "2 gpus; A n2 min2 on 0,1; B part250", "A 0,1; B waits"},
    {"a part is a reason to shrink, several of one GPU are one", "2 gpus; A n2 on 0,1; B part250; C part750",
     "A 0,0; B 1; C 1"},
    {"who grows takes no GPU that is shared", "3 gpus; A n3 on 0,0,0; B part250 on 1", "A 0,0,2; B 1"},
    {"parts stay where they are", "2 gpus; A part250 on 0; B part250 on 1; C n2 min2", "A 0; B 1; C waits"},
    {"and are behind whom the pool drains for", "1 gpus; A part500 on 0; B n1 skip16; C part250",
     "A 0; B waits; C waits"},
    {"parts leave a sick GPU, as far as there is room", "3 gpus sick0; A part750 on 0; B part500 on 0; C part500 on 1",
     "A 2; B 1; C 1"},
    {"or stay", "2 gpus sick0; A part750 on 0; B part500 on 1", "A 0; B 1"},
    {"what is too much for one GPU is taken apart", "2 gpus; A part750 on 0; B part500 on 0", "A 0; B 1"},
    {"nothing changes for parts whose server is away", "1+1 gpus off0; A part500 on 0; B part250 on 0; C part250",
     "A 0; B 0; C 1"},
    {"a lost part is made good where there is room", "2 gpus; A part500 on -; B part500 on 1", "A 1; B 1"},
    {"the part of who is being suspended is kept", "1 gpus; A part500 suspended keeps0 on p0; B part500; C part250",
     "A p0; B 0; C waits"},
    {"and others' when it is parked", "1 gpus; A part500 suspended waiting on p0; B part500; C part500",
     "A waits; B 0; C 0"},
    {"it comes back beside another", "2 gpus; A part500 on 1; B part500 waiting on p0", "A 1; B 1"},
    {"at the server that keeps it where that costs nothing",
     "1+1 gpus; A part500 on 0; B part500 on 1; C part500 waiting on p1", "A 0; B 1; C 1"},
    {"not where that has just failed", "1+1 gpus; A part500 on 0; B part500 waiting failed0 on p0", "A 0; B 1"},
    {"a server that is drained takes nothing new", "2+2 gpus drain0; A n4", "A 2,3,2,3"},
    {"and is left", "2+2 gpus drain0; A n2 on 0,1; B n1 on 2", "A 3,3; B 2"},
    {"by who lies there by hand, too", "1+1 gpus drain0; A n2 pinned t1 on 0,0", "A 1,1"},
    {"others shrink for who leaves it", "2+2 gpus drain0; A n1 on 0; B n2 on 2,3", "A 3; B 2,2"},
    {"who finds no room stays whole", "2+1 gpus drain0; A n2 min2 on 0,1", "A 0,1"},
    {"where all are drained all stay, and nothing comes", "1+1 gpus drain0 drain1; A n1 on 0; B n1", "A 0; B waits"},
    {"it keeps no suspended job that another can keep", "1+1 gpus drain0; A n1 suspended on 0", "A p1"},
    {"but where no other can", "1+1 gpus drain0 drain1; A n1 suspended on 0", "A p0"},
    {"a part leaves it, too", "1+1 gpus drain0; A part500 on 0; B part500 on 1", "A 1; B 1"},
    {"a model that is required", "2+2 gpus s0:L40 s1:H200; A n1 needs:H200; B n2 needs:l40", "A 2; B 0,1"},
    {"whole words of it", "1+1 gpus s0:A100 s1:A10; A n1 needs:A10", "A 1"},
    {"what does not meet it is not used for it", "1+1 gpus s0:L40 s1:H200; A n2 needs:H200; B n1", "A 1,1; B 0"},
    {"labels that are required", "1+1+1 gpus s0:rack=a s1:rack=b s2:rack=b s2:zone=1; A n1 needs:rack=b needs:zone=1",
     "A 2"},
    {"who is where it may not be any more moves", "1+1 gpus s1:rack=a; A n1 needs:rack=a on 0", "A 1"},
    {"or stays where there is nothing else", "1+1 gpus s1:rack=a; A n1 needs:rack=a on 0; B n1 min1 on 1", "A 0; B 1"},
    {"all on one server", "2+3 gpus; A n1 on 2; B n3 needs:server", "A 2; B 0,1,0"},
    {"never on two", "1+1 gpus; A n2 min2 needs:server; B n1", "A waits; B 0"},
    {"behind one switch", "1+1+1 gpus s0:switch=x s1:switch=y s2:switch=y; A n2 needs:switch", "A 1,2"},
    {"no switch that is known is a switch of its own", "1+2 gpus; A n2 needs:switch", "A 1,2"},
    {"together it leaves a drained server together", "2+2 gpus drain0; A n2 needs:server on 0,1", "A 2,3"},
    {"or not at all", "2+1+1 gpus drain0; A n2 min2 needs:server on 0,1", "A 0,1"},
    {"on one server it grows there", "2+2 gpus; A n3 needs:server on 0,0,0", "A 0,0,1"},
    {"a part has a model, too", "1+1 gpus s0:L40 s1:H200; A part500 on 0; B part500 needs:H200; C part500",
     "A 0; B 1; C 0"},
    {"as far as it has more than its minimum", "2+1 gpus s0:H200 s1:L40; A n2 on 0,1; C n1 on 2; B n1 needs:H200",
     "A 0,0; C 2; B 1"},
};

TEST(Policy, table) {
  for (const Row& row : kRows) {
    const State state = parse_state(row.state);
    EXPECT_EQ(to_text(state, assign(state)), row.answer) << row.what << ": " << row.state;
  }
}

TEST(Policy, a_second_round_changes_nothing) {
  for (const Row& row : kRows) {
    State state = parse_state(row.state);
    Assignment first = assign(state);
    for (int round = 0; round < 5; ++round) {
      state = after(state, first);
      const Assignment again = assign(state);
      EXPECT_EQ(to_text(state, again), to_text(state, first)) << row.what << ": " << row.state;
      first = again;
    }
  }
}

// What must hold of any answer: one job a GPU, or parts of one in sum; minima, complete places.
void expect_sound(const State& state, const Assignment& assignment) {
  std::map<GpuId, uint32_t> parts;
  for (const JobView& job : state.jobs) {
    const Decision& decision = assignment.at(job.id);
    if (!decision.running) {
      EXPECT_FALSE(job.running) << job.id << " was running and is not any more";
      EXPECT_NE(decision.reason, "");
      continue;
    }
    ASSERT_EQ(decision.places.size(), job.vgpus);
    std::set<GpuId> gpus;
    for (const GpuId& place : decision.places) {
      ASSERT_FALSE(place.none());
      ASSERT_EQ(place.parked(), job.suspended) << job.id;
      if (place.parked()) continue;
      if (!gpus.insert(place).second) continue;
      parts[place] += job.part;
      EXPECT_LE(parts[place], kWholeGpu) << to_text(place) << " serves too many jobs";
    }
    if (job.suspended) continue;
    EXPECT_GE(gpus.size(), std::min(job.min_gpus, job.vgpus)) << job.id;
    EXPECT_LE(gpus.size(), job.vgpus) << job.id;
  }
}

TEST(Policy, is_sound_and_stable_over_many_arrivals_and_ends) {
  uint64_t dice = 42;
  const auto roll = [&](uint32_t sides) {
    dice = dice * 6364136223846793005ull + 1442695040888963407ull;
    return uint32_t(dice >> 33) % sides;
  };
  State state = parse_state("4+4+8 gpus");
  for (uint32_t event = 0; event < 2000; ++event) {
    if (roll(2) == 0 || state.jobs.empty()) {
      JobView job{.id = "j" + std::to_string(event), .vgpus = 1 + roll(8), .places = {}};
      job.min_gpus = 1 + roll(job.vgpus);
      if (roll(2) == 0) {
        job.vgpus = job.min_gpus = 1;
        job.part = 125 * (1 + roll(7));
      }
      state.jobs.push_back(job);
    } else if (roll(3) == 0) {
      JobView& job = state.jobs[roll(uint32_t(state.jobs.size()))];
      job.target = job.min_gpus + roll(job.vgpus - job.min_gpus + 1);
    } else if (roll(2) == 0) {
      JobView& job = state.jobs[roll(uint32_t(state.jobs.size()))];
      if (!job.places.empty()) job.suspended = !job.suspended;
    } else {
      state.jobs.erase(state.jobs.begin() + roll(uint32_t(state.jobs.size())));
    }
    const Assignment answer = assign(state);
    expect_sound(state, answer);
    state = after(state, answer);
    ASSERT_EQ(to_text(state, assign(state)), to_text(state, answer)) << "event " << event;
    for (JobView& job : state.jobs) {
      if (job.suspended) job.running = false, job.keeps.clear();  // all of it is parked
    }
    state = after(state, assign(state));
  }
}

TEST(Policy, packs_sixteen_halves_two_on_each_of_eight_gpus) {
  State state = parse_state("4+4 gpus");
  for (uint32_t i = 0; i < 17; ++i) state.jobs.push_back(parse_job("j" + std::to_string(i) + " part500", state));
  const Assignment answer = assign(state);
  std::map<GpuId, uint32_t> jobs;
  for (uint32_t i = 0; i < 16; ++i) ++jobs[answer.at(state.jobs[i].id).places.at(0)];
  EXPECT_EQ(jobs.size(), 8u);
  for (const auto& [gpu, count] : jobs) EXPECT_EQ(count, 2u) << to_text(gpu);
  EXPECT_FALSE(answer.at("j16").running);
  EXPECT_EQ(answer.at("j16").reason,
            "needs 0.5 of a GPU; none that is shared has so much left, and 0 of 8 can be free while the jobs before it "
            "keep their minimum");
}

TEST(Policy, says_what_is_impossible) {
  const State four = parse_state("4 gpus");
  const auto why = [&](const char* job, bool min_given) {
    return why_impossible(four, parse_job(job, four), min_given);
  };
  EXPECT_EQ(why("A n4", false), "");
  EXPECT_EQ(why("A n8", false),
            "the pool has 4 GPUs; -g 8 asks for more. Use -g 4, or --min 4 to let 8 virtual GPUs share them");
  EXPECT_EQ(why("A n8 min2", true), "");
  EXPECT_EQ(why("A n8 min5", true), "the pool has 4 GPUs; --min 5 asks for more. Use --min 4 or less");
  EXPECT_NE(why("A n4 mem17", false), "");
  EXPECT_EQ(why("A part500 mem16", false), "");
  EXPECT_NE(why("A part500 mem17", false), "");
  const State none = parse_state("0 gpus");
  EXPECT_NE(why_impossible(none, parse_job("A n1", none), false), "");
}

TEST(Policy, gives_one_reason_and_who_is_in_the_way) {
  const State state = parse_state("4 gpus; A n4 min4 on 0,1,2,3; B n2 min2; C n1 skip0");
  EXPECT_EQ(assign(state).at("B").reason,
            "needs 2 GPUs; 0 of 4 can be free while the jobs before it keep their minimum");
}

}  // namespace
}  // namespace tide::sched
