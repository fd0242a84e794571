// Protected jobs, with agents that only pretend to make checkpoints and to restore from them.

#include <capnp/message.h>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Protects : public PoolFixture {
 protected:
  Submitted run_protected(uint32_t gpus = 1) {
    Submitted job;
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(gpus);
    request.getSpec().setMinGpus(gpus);
    request.getSpec().setProtectMs(300);
    EXPECT_EQ(error_of(request.send().then([&job](auto&& answer) {
                job.id = answer.getId();
                job.token =
                    std::string(reinterpret_cast<const char*>(answer.getToken().begin()), answer.getToken().size());
                job.handle = answer.getHandle();
              })),
              "");
    EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(job.handle).runningRequest().send().ignoreResult()), "");
    return job;
  }
  // "node1 whole", "node1", "none"; then why there is none, or none newer.
  std::string protection(const std::string& id, uint32_t vgpu = 0) {
    auto request = peer_->pool.jobRequest();
    request.setJob(id);
    auto answer = request.send().wait(io_.waitScope);
    const auto info = answer.getJob().getVgpus()[vgpu].getProtection();
    std::string text = info.getGuard().size() == 0 ? "none" : info.getGuard().cStr();
    if (info.getSameServer()) text += " same";
    if (info.getMadeMs() != 0) text += " whole";
    return info.getProblem().size() == 0 ? text : text + ": " + info.getProblem().cStr();
  }
  void await_protection(const std::string& id, const std::string& text, uint32_t vgpu = 0) {
    const uint64_t end = now_ns() + 20'000'000'000;
    while (protection(id, vgpu) != text && now_ns() < end) beat();
    EXPECT_EQ(protection(id, vgpu), text);
  }
  void beat() {
    for (auto& held : registrations_) held.heartbeatRequest().send().ignoreResult().detach([](kj::Exception&&) {});
    pause(10);
  }
  template <class Condition>
  void await(Condition condition) {
    for (const uint64_t end = now_ns() + 20'000'000'000; !condition() && now_ns() < end;) beat();
    EXPECT_TRUE(condition());
  }
  size_t count(const std::string& begin) const {
    return size_t(std::count_if(log_.calls.begin(), log_.calls.end(),
                                [&](const std::string& call) { return call.rfind(begin, 0) == 0; }));
  }
  std::string cancel_of_guard(const std::string& vgpu) {
    return format("cancel %s epoch %lu", vgpu.c_str(), (unsigned long)log_.guard_epochs[vgpu]);
  }
};

TEST_F(Protects, another_server_guards_and_checkpoints_come_again_and_again) {
  add_server("node0", 1);
  add_server("node1", 0);
  const Submitted job = run_protected();
  await_protection(job.id, "node1 whole");
  await([&] { return count("checkpoint 1:0 on node0 epoch 1") >= 3; });
  EXPECT_EQ(count("prepare 1:0 on node1/guard"), 1u);
  auto request = peer_->pool.killRequest();
  request.setJob(job.id);
  EXPECT_EQ(error_of(request.send().ignoreResult()), "");
  await([&] { return called(cancel_of_guard("1:0")); });
}

TEST_F(Protects, a_lost_worker_is_released_and_goes_on_from_the_guard) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted job = run_protected();
  await_protection(job.id, "node1 whole");
  log_.worker_lost = true;
  await([&] {
    return count("give 1:0 from node1 to node0/0 epoch 2") + count("give 1:0 from node1 to node1/0 epoch 2") == 1;
  });
  await([&] { return describe(job.id).rfind("running on node", 0) == 0; });
  const auto at = [&](const std::string& begin) {
    return std::find_if(log_.calls.begin(), log_.calls.end(), [&](const auto& c) { return c.rfind(begin, 0) == 0; });
  };
  EXPECT_LT(at("release 1:0 from node0 epoch 1"), at("prepare 1:0 on node0/0 epoch 2"));
  await([&] { return count("checkpoint 1:0 on node0 epoch 2") >= 1; });
}

TEST_F(Protects, a_lost_servers_job_goes_on_elsewhere) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted job = run_protected();
  EXPECT_EQ(describe(job.id), "running on node0/0");
  await_protection(job.id, "node1 whole");
  lose_server(0);
  wait_for(job.id, "running on node1/0");
  EXPECT_TRUE(called("give 1:0 from node1 to node1/0 epoch 2"));
  await_protection(job.id, "node1 same whole");
}

// Its program waits: longer than a job that never ran would.
TEST_F(Protects, a_recovery_that_fails_is_tried_elsewhere_and_again_and_the_job_waits) {
  add_server("node0", 1);
  add_server("node1", 1);
  add_server("node2", 1);
  const Submitted job = run_protected();
  await_protection(job.id, "node1 whole");
  log_.fail["give"] = "no way there";
  log_.worker_lost = true;
  const auto tries = [&](const std::string& server) { return count("prepare 1:0 on " + server + "/0"); };
  await([&] { return tries("node0") == 1 && tries("node1") == 1 && tries("node2") == 1; });
  auto request = peer_->pool.jobRequest();
  request.setJob(job.id);
  const std::string problem = request.send().wait(io_.waitScope).getJob().getReason().cStr();
  EXPECT_NE(problem.find("waits to be restored from its checkpoint on node1; on node"), std::string::npos) << problem;
  await([&] { return tries("node0") + tries("node1") + tries("node2") > kPlaceTriesMax; });
  EXPECT_EQ(describe(job.id), "running on -");
  log_.fail.erase("give");
  await([&] { return describe(job.id).rfind("running on node", 0) == 0; });
}

TEST_F(Protects, without_a_checkpoint_it_ends_as_others_do) {
  add_server("node0", 1);
  add_server("node1", 1);
  log_.fail["checkpoint"] = "no room";
  const Submitted job = run_protected();
  await_protection(job.id, "node1: no room");
  log_.worker_lost = true;
  wait_for(job.id, "ended: a worker of its virtual GPU 0 was lost, and no checkpoint is whole: no room");
  await([&] { return called(cancel_of_guard("1:0")); });
}

TEST_F(Protects, what_cannot_be_protected_runs_on_and_says_so) {
  add_server("node0", 1);
  add_server("node1", 1);
  log_.refused = "its kernels reach memory of the program";
  const Submitted job = run_protected();
  await_protection(job.id, "none: protected no more: its kernels reach memory of the program");
  EXPECT_TRUE(called(cancel_of_guard("1:0")));
  EXPECT_EQ(describe(job.id), "running on node0/0");
}

TEST_F(Protects, a_lost_guard_has_a_successor) {
  add_server("node0", 1);
  add_server("node1", 0);
  const Submitted job = run_protected();
  await_protection(job.id, "node1 whole");
  lose_server(1);
  pause(100);
  add_server("node1", 0);  // and it has nothing of before
  await([&] { return count("prepare 1:0 on node1/guard") == 2; });
  await_protection(job.id, "node1 whole");
  EXPECT_EQ(describe(job.id), "running on node0/0");
}

TEST_F(Protects, a_restarted_scheduler_knows_the_guard_again) {
  add_server("node0", 1);
  add_server("node1", 1);
  Submitted job = run_protected();
  await_protection(job.id, "node1 whole");
  stop();
  job.handle = nullptr;
  agents_.clear();
  registrations_.clear();
  start();
  auto request = peer_->pool.reattachRequest();
  request.setId(job.id);
  request.setToken(kj::StringPtr(job.token.c_str(), job.token.size()).asBytes());
  job.handle = request.send().wait(io_.waitScope).getHandle();
  capnp::MallocMessageBuilder message;
  auto list = message.initRoot<control::ServerInfo>().initLeases(2);
  for (uint32_t i = 0; i < 2; ++i) {
    list[i].setJob(job.id);
    list[i].setVgpu(0);
    list[i].setGpu(i == 0 ? control::GUARDING : 0);
    list[i].setEpoch(i == 0 ? log_.guard_epochs["1:0"] : 1);
  }
  add_server("node1", 1, {list[0].asReader()});
  add_server("node0", 1, {list[1].asReader()});
  EXPECT_EQ(protection(job.id), "node1 whole");
  EXPECT_EQ(count("prepare 1:0 on node1/guard"), 1u);
  log_.worker_lost = true;
  await([&] { return count("give 1:0 from node1") == 1; });
}

}  // namespace
}  // namespace tide::sched
