// Running jobs that are moved so that others can start: the scheduler as a whole, with agents that only pretend.

#include <algorithm>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Consolidates : public PoolFixture {
 protected:
  Submitted submit_some(uint32_t part, const std::string& model = "") {
    Submitted job;
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(1);
    request.getSpec().setPart(part);
    request.getSpec().setGpuModel(model);
    const std::string error = error_of(request.send().then([&job](auto&& answer) {
      job.id = answer.getId();
      job.handle = answer.getHandle();
    }));
    EXPECT_EQ(error, "");
    return job;
  }
  Submitted run_some(uint32_t part) {
    Submitted job = submit_some(part);
    EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(job.handle).runningRequest().send().ignoreResult()), "");
    return job;
  }
  // Two halves, alone on a GPU each.
  void scatter(Submitted* one, Submitted* other, const std::string& second = "node0/1") {
    *one = run_some(500);
    const Submitted between = run_some(500);
    *other = run_some(500);
    EXPECT_EQ(describe(one->id), "running on node0/0");
    EXPECT_EQ(describe(other->id), "running on " + second);
  }
  control::Pool::WhyResults::Reader ask_why(const std::string& id) {
    auto request = peer_->pool.whyRequest();
    request.setJob(id);
    answers_.push_back(request.send().wait(io_.waitScope));
    return answers_.back();
  }
  std::string why(const std::string& id) { return ask_why(id).getReason(); }
  std::string evidence(const std::string& id) {
    std::string text;
    for (const auto each : ask_why(id).getEvidence()) text += std::string(each) + "\n";
    return text;
  }
  void wait_until_why(const std::string& id, const std::string& part) {
    for (const uint64_t end = now_ns() + 20'000'000'000; now_ns() < end; beat()) {
      if (why(id).find(part) != std::string::npos) return;
    }
    ADD_FAILURE() << id << ": " << why(id) << " has no '" << part << "'";
  }
  void beat() {
    for (auto& held : registrations_) held.heartbeatRequest().send().ignoreResult().detach([](kj::Exception&&) {});
    pause(5);
  }
  size_t moves() const {
    return size_t(std::count_if(log_.calls.begin(), log_.calls.end(),
                                [](const std::string& call) { return call.rfind("move ", 0) == 0; }));
  }

  std::vector<capnp::Response<control::Pool::WhyResults>> answers_;
};

TEST_F(Consolidates, halves_move_together_and_say_for_whom) {
  add_server("node0", 2);
  Submitted one, other;
  scatter(&one, &other);
  log_.move_ms = 300;
  const Submitted whole = submit_some(kWholeGpu);
  wait_until_why(whole.id, "being moved so that it can start: job " + one.id);
  EXPECT_NE(evidence(whole.id).find("is on its way from node0/0 to node0/1"), std::string::npos) << evidence(whole.id);
  wait_for(whole.id, "running on node0/0");
  wait_for(one.id, "running on node0/1");
  EXPECT_EQ(describe(other.id), "running on node0/1");
  EXPECT_NE(evidence(one.id).find("because it was moved so that job " + whole.id + " could start"), std::string::npos)
      << evidence(one.id);
  EXPECT_EQ(moves(), 1u);
  pause(3 * kTickMs);
  EXPECT_EQ(moves(), 1u) << "and then nothing";
}

TEST_F(Consolidates, where_one_cannot_be_moved_the_other_is) {
  add_server("node0", 1);
  add_server("node1", 1);
  Submitted one, other;
  scatter(&one, &other, "node1/0");
  log_.unreachable["node1"] = "no way there";
  const Submitted whole = submit_some(kWholeGpu);
  wait_for(whole.id, "running on node1/0");
  EXPECT_EQ(describe(one.id), "running on node0/0") << "its own move has failed";
  EXPECT_EQ(describe(other.id), "running on node0/0");
  EXPECT_EQ(moves(), 2u);
}

TEST_F(Consolidates, a_move_that_fails_is_not_tried_again_at_once_and_the_job_says_so) {
  add_server("node0", 2);
  Submitted one, other;
  scatter(&one, &other);
  log_.fail["move"] = "no room";
  const Submitted whole = submit_some(kWholeGpu);
  for (const uint64_t end = now_ns() + 20'000'000'000; moves() < 2 && now_ns() < end;) beat();
  const size_t soon = moves();
  pause(kTickMs);
  EXPECT_LE(moves(), soon + 2);
  EXPECT_NE(evidence(whole.id).find("no room"), std::string::npos)
      << why(whole.id) << "; " << evidence(whole.id) << describe(whole.id);
  log_.fail.clear();
  for (const uint64_t end = now_ns() + 30'000'000'000; describe(whole.id).rfind("running", 0) != 0 && now_ns() < end;)
    beat();
  EXPECT_EQ(describe(whole.id).rfind("running on node0/", 0), 0u) << describe(whole.id);
  EXPECT_EQ(describe(one.id), describe(other.id));
}

}  // namespace
}  // namespace tide::sched
