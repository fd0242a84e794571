// Servers that are being drained, and what jobs require of their GPUs, with agents that only pretend.

#include <capnp/message.h>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Drains : public PoolFixture {
 protected:
  std::string drain(const std::string& server, bool on = true) {
    auto request = peer_->pool.drainRequest();
    request.setServer(server);
    request.setDraining(on);
    return error_of(request.send().ignoreResult());
  }
  // "empty", or what is left: "1 gpu 0,1 leaves; 2 parked 0 stays: REASON"; "no": it is not being drained.
  std::string left_on(const std::string& name) {
    auto answer = peer_->pool.serversRequest().send().wait(io_.waitScope);
    for (const auto server : answer.getServers()) {
      if (std::string(server.getName()) != name) continue;
      if (server.getDrainingMs() == 0) return "no";
      std::string text;
      for (const auto left : server.getLeft()) {
        constexpr const char *kKinds[] = {"gpu", "parked", "guard"}, *kDoing[] = {"leaves", "retries", "stays"};
        text += (text.empty() ? "" : "; ") + std::string(left.getJob()) + " " + kKinds[int(left.getKind())] + " ";
        for (uint32_t i = 0; i < left.getVgpus().size(); ++i)
          text += (i == 0 ? "" : ",") + std::to_string(left.getVgpus()[i]);
        text += std::string(" ") + kDoing[int(left.getDoing())];
        if (left.getReason().size() != 0) text += ": " + std::string(left.getReason());
      }
      return text.empty() ? "empty" : text;
    }
    return "unknown";
  }
  void await_left(const std::string& name, const std::string& text) {
    for (const uint64_t end = now_ns() + 20'000'000'000; left_on(name) != text && now_ns() < end;) beat();
    EXPECT_EQ(left_on(name), text);
  }
  void beat() {
    for (auto& held : registrations_) held.heartbeatRequest().send().ignoreResult().detach([](kj::Exception&&) {});
    pause(10);
  }
  void expect_idle() {
    const size_t before = log_.calls.size();
    pause(3 * kTickMs);
    EXPECT_EQ(log_.calls.size(), before) << log_.calls.back();
  }
  std::string why(const std::string& id) {
    auto request = peer_->pool.whyRequest();
    request.setJob(id);
    return request.send().wait(io_.waitScope).getReason();
  }
  std::string migrate(const std::string& id, const std::string& server) {
    auto request = peer_->pool.migrateRequest();
    request.setJob(id);
    request.setVgpu(-1);
    request.setServer(server);
    return error_of(request.send().ignoreResult());
  }
  std::string submit_requiring(const std::string& model, const std::string& label, control::Together together,
                               uint32_t gpus, Submitted* job) {
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(gpus);
    request.getSpec().setMinGpus(1);
    request.getSpec().setGpuModel(model);
    if (!label.empty()) request.getSpec().initLabels(1).set(0, label);
    request.getSpec().setTogether(together);
    return error_of(request.send().then([job](auto&& answer) {
      job->id = answer.getId();
      job->handle = answer.getHandle();
    }));
  }

  MoveTotals totals_;
  std::string queued_;
};

TEST_F(Drains, everything_moves_off_and_nothing_comes_until_it_is_undrained) {
  add_server("node0", 2);
  add_server("node1", 2);
  const Submitted job = run(2);
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  EXPECT_EQ(left_on("node0"), "no");
  EXPECT_EQ(drain("node0"), "");
  EXPECT_EQ(left_on("node0"), job.id + " gpu 0,1 leaves");
  wait_for(job.id, "running on node1/0 node1/1");
  EXPECT_EQ(left_on("node0"), "empty");
  EXPECT_EQ(drain("node0"), "") << "again";
  Submitted next;
  EXPECT_EQ(submit(1, 1, &next), "");
  wait_for(next.id, "running on node1/1");
  wait_for(job.id, "running on node1/0 node1/0");
  expect_idle();
  EXPECT_NE(migrate(next.id, "node0").find("server node0 is being drained, so it takes nothing; `tide undrain node0`"),
            std::string::npos);
  EXPECT_EQ(drain("node0", false), "");
  EXPECT_EQ(left_on("node0"), "no");
  wait_for(job.id, "running on node1/0 node0/0");
}

TEST_F(Drains, why_says_who_waits_or_was_moved_for_it) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted job = run(1);
  EXPECT_EQ(why(job.id), "");
  EXPECT_EQ(drain("node0"), "");
  wait_for(job.id, "running on node1/0");
  const std::string moved = why(job.id);
  EXPECT_EQ(moved.rfind("runs on 1 of 1 GPUs; it was moved ", 0), 0u) << moved;
  EXPECT_NE(moved.find("because server node0 is being drained"), std::string::npos) << moved;
  Submitted next;
  EXPECT_EQ(submit(1, 1, &next), "");
  beat();
  EXPECT_EQ(why(next.id), "waits because servers are being drained: node0");
  EXPECT_EQ(drain("node0", false), "");
  wait_for(next.id, "running on node0/0");
}

TEST_F(Drains, a_restart_of_the_scheduler_or_the_agent_changes_nothing) {
  add_server("node0", 2);
  add_server("node1", 2);
  EXPECT_EQ(drain("node0"), "");
  Submitted job = run(1);
  EXPECT_EQ(describe(job.id), "running on node1/0");
  restart({&job}, {"node0", "node1"}, 2);
  EXPECT_EQ(left_on("node0"), "empty");
  wait_for(job.id, "running on node1/0");
  lose_server(0);
  beat();
  add_server("node0", 2);
  EXPECT_EQ(left_on("node0"), "empty");
  expect_idle();
  EXPECT_EQ(describe(job.id), "running on node1/0");
}

TEST_F(Drains, who_cannot_leave_is_named_and_leaves_when_it_can) {
  add_server("node0", 2);
  add_server("node1", 1);
  const Submitted large = run(2, 2), small = run(1, 1);
  EXPECT_EQ(drain("node0"), "");
  beat();
  EXPECT_EQ(left_on("node0"), large.id +
                                  " gpu 0,1 stays: it needs 2 GPUs; on servers that take jobs there is 1, 0 of "
                                  "them free");
  expect_idle();
  EXPECT_EQ(describe(large.id), "running on node0/0 node0/1");
  add_server("node2", 2);
  wait_for(large.id, "running on node2/0 node2/1");
  EXPECT_EQ(left_on("node0"), "empty");
}

TEST_F(Drains, a_move_that_is_refused_is_tried_again_and_said) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted job = run(1);
  log_.fail["move"] = "the program and its kernels share host memory, which another machine cannot reach";
  EXPECT_EQ(drain("node0"), "");
  await_left("node0", job.id +
                          " gpu 0 retries: virtual GPU 0 could not move from node0/0 to node1/0: the program and its "
                          "kernels share host memory, which another machine cannot reach. It stays where it is; tried "
                          "again in 1000 ms");
  log_.fail.clear();
  EXPECT_EQ(drain("node0"), "") << "somebody asks: at once";
  wait_for(job.id, "running on node1/0");
}

TEST_F(Drains, all_servers_an_unknown_one_and_one_that_is_away) {
  add_server("node0", 1);
  add_server("node1", 1);
  EXPECT_EQ(drain("node7"), "there is no server node7; the pool's are node0, node1");
  EXPECT_EQ(drain("node7", false), "there is no server node7; the pool's are node0, node1");
  const Submitted job = run(1);
  EXPECT_EQ(drain("node0"), "");
  EXPECT_EQ(drain("node1"), "") << "two at once";
  beat();
  Submitted next;
  EXPECT_EQ(submit(1, 1, &next), "");
  for (int i = 0; i < 20; ++i) beat();
  EXPECT_EQ(describe(next.id).rfind("queued: ", 0), 0u) << describe(next.id);
  const std::string where = describe(job.id).find("node0") != std::string::npos ? "node0" : "node1";
  EXPECT_EQ(left_on(where), job.id + " gpu 0 stays: it needs 1 GPU; on servers that take jobs there are 0");
  lose_server(where == "node0" ? 0 : 1);
  beat();
  EXPECT_EQ(left_on(where), job.id + " gpu 0 stays: server " + where + " does not answer");
  EXPECT_EQ(drain(where, false), "") << "also while it is away";
  EXPECT_EQ(left_on(where), "no");
}

TEST_F(Drains, a_server_that_is_gone_stays_drained_until_somebody_says_so) {
  add_server("node0", 1);
  EXPECT_EQ(drain("node0"), "");
  restart({}, {}, 2);
  EXPECT_EQ(left_on("node0"), "empty");
  EXPECT_EQ(drain("node0", false), "");
  EXPECT_EQ(left_on("node0"), "unknown");
}

TEST_F(Drains, a_job_that_is_under_way_to_it_leaves_it_again) {
  add_server("node0", 1);
  add_server("node1", 1);
  add_server("node2", 1);
  const Submitted job = run(1);
  log_.move_ms = 300;
  auto request = peer_->pool.migrateRequest();
  request.setJob(job.id);
  request.setVgpu(-1);
  request.setServer("node1");
  auto migrating = request.send();
  pause(100);
  EXPECT_EQ(drain("node1"), "");
  EXPECT_EQ(left_on("node1"), job.id + " gpu 0 leaves");
  await_left("node1", "empty");
  EXPECT_TRUE(called("move 1:0 on node0/0 epoch 2")) << "the first move is not broken off";
  EXPECT_NE(describe(job.id), "running on node1/0");
}

TEST_F(Drains, what_is_parked_goes_to_another_keeper_and_comes_back_from_there) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted job = run(1), other = run(1);
  EXPECT_EQ(suspend(job.id, &totals_), "");
  EXPECT_EQ(describe(job.id), "suspended on node0/parked");
  EXPECT_EQ(drain("node0"), "");
  EXPECT_EQ(left_on("node0"), job.id + " parked 0 leaves");
  wait_for(job.id, "suspended on node1/parked");
  EXPECT_EQ(left_on("node0"), "empty");
  expect_idle();
  EXPECT_EQ(drain("node1"), "");
  beat();
  EXPECT_EQ(left_on("node1"), job.id +
                                  " parked 0 stays: it is kept here without a GPU, and there is no other server that "
                                  "could keep it; " +
                                  other.id + " gpu 0 stays: it needs 1 GPU; on servers that take jobs there are 0");
  EXPECT_EQ(drain("node0", false), "");
  wait_for(job.id, "suspended on node0/parked");
  EXPECT_EQ(resume(job.id, &totals_, &queued_), "");
}

TEST_F(Drains, a_keeper_without_room_is_said_and_tried_again) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted job = run(1);
  EXPECT_EQ(suspend(job.id, &totals_), "");
  log_.room["node1"] = 0;
  EXPECT_EQ(drain("node0"), "");
  await_left("node0",
             job.id + " parked 0 retries: virtual GPU 0 could not be kept on node1: the disk of node1 is full");
  log_.room.clear();
  wait_for(job.id, "suspended on node1/parked");
}

TEST_F(Drains, who_is_suspended_meanwhile_is_kept_elsewhere) {
  add_server("node0", 2);
  add_server("node1", 1);
  const Submitted job = run(1), other = run(2, 2);
  EXPECT_EQ(drain("node0"), "");
  beat();
  for (const std::string& id : {job.id, other.id}) {
    if (describe(id).find("node0") == std::string::npos) continue;
    log_.at_rest = true;
    EXPECT_EQ(suspend(id, &totals_), "");
    EXPECT_NE(describe(id).find("suspended on node1/parked"), std::string::npos) << describe(id);
  }
  await_left("node0", "empty");
}

TEST_F(Drains, checkpoints_go_to_another_server) {
  add_server("node0", 1);
  add_server("node1", 0);
  add_server("node2", 0);
  auto request = peer_->pool.submitRequest();
  request.getSpec().setGpus(1);
  request.getSpec().setProtectMs(300);
  Submitted job;
  EXPECT_EQ(error_of(request.send().then([&job](auto&& answer) {
              job.id = answer.getId();
              job.handle = answer.getHandle();
            })),
            "");
  const std::string vgpu = job.id + ":0";
  const auto guarded_by = [&](const std::string& server) {
    for (const uint64_t end = now_ns() + 10'000'000'000; log_.guards[vgpu] != server && now_ns() < end;) beat();
    EXPECT_EQ(log_.guards[vgpu], server);
  };
  guarded_by("node1");
  const std::string first = format("cancel %s epoch %lu", vgpu.c_str(), (unsigned long)log_.guard_epochs[vgpu]);
  EXPECT_EQ(drain("node1"), "");
  guarded_by("node2");
  EXPECT_TRUE(called(first));
  EXPECT_EQ(left_on("node1"), "empty");
  EXPECT_EQ(drain("node2"), "");
  guarded_by("node0");
}

TEST_F(Drains, what_no_gpu_of_the_pool_meets_is_refused_with_what_it_has) {
  add_server("node0", 2);
  Submitted job;
  EXPECT_EQ(submit_requiring("H200", "", control::Together::PREFERRED, 1, &job),
            "no GPU of the pool is of model H200; it has 2 Fake GPU (`tide gpus` shows where)");
  EXPECT_EQ(
      submit_requiring("", "rack=a", control::Together::PREFERRED, 1, &job),
      "no server of the pool has the label rack=a; no server has a label (`labels` of a [[server]] in pool.toml)");
  EXPECT_EQ(submit_requiring("", "rack", control::Together::PREFERRED, 1, &job),
            "'rack' is no label; it is KEY=VALUE, like rack=a");
  EXPECT_EQ(submit_requiring("a/b", "", control::Together::PREFERRED, 1, &job),
            "--gpu-model is words of a GPU's name, like H200, of letters, digits, '-', '_' and '.'");
  add_server("node1", 2);
  EXPECT_EQ(
      submit_requiring("", "", control::Together::SERVER, 3, &job),
      "the pool has at most 2 GPUs on one server that meet it (together server); -g 3 asks for more. Use -g 2, or "
      "--min 2 to let 3 virtual GPUs share them");
  EXPECT_EQ(submit_requiring("fake", "", control::Together::SERVER, 2, &job), "");
  wait_for(job.id, "running on node0/0 node0/1");
  EXPECT_NE(migrate(job.id, "node1").find("is not usable"), 0u);
}

}  // namespace
}  // namespace tide::sched
