// Who has a vGPU after servers or the scheduler were away, in particular in the middle of a move.

#include <algorithm>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Leases : public PoolFixture {
 public:
  ~Leases() noexcept override {}

 protected:
  struct Held {
    uint32_t gpu = 0;
    uint64_t epoch = 0;
  };
  // With these leases of the job's vGPU 0.
  void come_back(const std::string& server, const std::string& job, const std::vector<Held>& held) {
    capnp::MallocMessageBuilder message;
    auto list = message.initRoot<control::ServerInfo>().initLeases(uint32_t(held.size()));
    std::vector<control::Lease::Reader> leases;
    for (uint32_t i = 0; i < list.size(); ++i) {
      list[i].setJob(job);
      list[i].setGpu(held[i].gpu);
      list[i].setEpoch(held[i].epoch);
      leases.push_back(list[i].asReader());
    }
    add_server(server, 2, leases);
    pause(100);
  }
  kj::Promise<void> migrate(const std::string& job, const std::string& server, uint32_t gpu) {
    auto request = peer_->pool.migrateRequest();
    request.setJob(job);
    request.setVgpu(0);
    request.setServer(server);
    request.setGpu(gpu);
    return request.send().ignoreResult().catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr);
  }
  // A job on node0/0 whose vGPU is on its way.
  Submitted begin_move(const std::string& server, uint32_t gpu) {
    add_server("node0", 2);
    add_server("node1", 2);
    Submitted job = run(1);
    EXPECT_EQ(describe(job.id), "running on node0/0");
    log_.move_ms = 5000;
    moving_ = migrate(job.id, server, gpu);
    pause(50);
    return job;
  }
  void restart(Submitted* job) {
    moving_ = kj::READY_NOW;
    stop();
    job->handle = nullptr;
    agents_.clear();
    registrations_.clear();
    start();
    auto request = peer_->pool.reattachRequest();
    request.setId(job->id);
    request.setToken(kj::StringPtr(job->token.c_str(), job->token.size()).asBytes());
    job->handle = request.send().wait(io_.waitScope).getHandle();
    log_.calls.clear();
  }

  void begin_anew() {
    registrations_.clear();
    TearDown();
    log_ = {};
    SetUp();
  }

  kj::Promise<void> moving_ = kj::READY_NOW;
};

TEST_F(Leases, a_source_that_dies_in_a_move_says_afterwards_that_it_has_the_vgpu) {
  const Submitted job = begin_move("node1", 1);
  lose_server(0);
  pause(100);
  EXPECT_FALSE(called("cancel 1:0 epoch 2")) << "its clients may be there by now";
  come_back("node0", job.id, {{.gpu = 0, .epoch = 1}});
  EXPECT_EQ(describe(job.id), "running on node0/0");
  EXPECT_TRUE(called("cancel 1:0 epoch 2"));
}

TEST_F(Leases, a_source_that_dies_in_a_move_says_afterwards_that_the_vgpu_has_gone) {
  const Submitted job = begin_move("node1", 1);
  lose_server(0);
  pause(100);
  come_back("node0", job.id, {});
  EXPECT_EQ(describe(job.id), "running on node1/1");
  EXPECT_FALSE(called("cancel 1:0 epoch 2"));
}

TEST_F(Leases, within_a_server_too) {
  Submitted job = begin_move("node0", 1);
  lose_server(0);
  pause(100);
  come_back("node0", job.id, {{.gpu = 0, .epoch = 1}, {.gpu = 1, .epoch = 2}});
  EXPECT_EQ(describe(job.id), "running on node0/0");
  EXPECT_TRUE(called("cancel 1:0 epoch 2"));
  EXPECT_FALSE(called("release 1:0 from node0 epoch 2")) << "which would end epoch 1, too";
  moving_ = migrate(job.id, "node0", 1);
  pause(50);
  lose_server(1);
  pause(100);
  come_back("node0", job.id, {{.gpu = 1, .epoch = 3}});
  EXPECT_EQ(describe(job.id), "running on node0/1");
}

TEST_F(Leases, a_destination_that_comes_back_in_a_move_has_nothing_to_say) {
  const Submitted job = begin_move("node1", 1);
  log_.move_ms = 1;
  lose_server(1);
  pause(100);
  come_back("node1", job.id, {{.gpu = 1, .epoch = 2}});
  EXPECT_EQ(describe(job.id), "running on node0/0");
  EXPECT_FALSE(called("release 1:0 from node1 epoch 2"));
}

TEST_F(Leases, a_lost_source_takes_its_vgpu_along) {
  const Submitted job = begin_move("node1", 1);
  lose_server(0);
  wait_for(job.id, "ended: its GPU server node0 was lost (no sign of life from its agent)");
  EXPECT_TRUE(called("cancel 1:0 epoch 2"));
}

// Either server may be the first to come back to a scheduler that died in the middle of a move.
TEST_F(Leases, after_a_restart_the_source_of_a_move_decides) {
  for (const bool source_first : {true, false}) {
    Submitted job = begin_move("node1", 1);
    restart(&job);
    if (source_first) come_back("node0", job.id, {{.gpu = 0, .epoch = 1}});
    come_back("node1", job.id, {{.gpu = 1, .epoch = 2}});
    if (!source_first) come_back("node0", job.id, {{.gpu = 0, .epoch = 1}});
    EXPECT_EQ(describe(job.id), "running on node0/0") << source_first;
    EXPECT_TRUE(called("release 1:0 from node1 epoch 2") || called("cancel 1:0 epoch 2")) << source_first;
    begin_anew();
  }
}

TEST_F(Leases, after_a_restart_a_vgpu_that_had_gone_is_where_it_went) {
  for (const bool source_first : {true, false}) {
    Submitted job = begin_move("node1", 1);
    restart(&job);
    if (source_first) come_back("node0", job.id, {});
    come_back("node1", job.id, {{.gpu = 1, .epoch = 2}});
    if (!source_first) come_back("node0", job.id, {});
    EXPECT_EQ(describe(job.id), "running on node1/1") << source_first;
    begin_anew();
  }
}

TEST_F(Leases, an_agent_whose_old_connection_still_seems_whole_is_let_in) {
  add_server("node0", 2);
  const Submitted job = run(1);
  come_back("node0", job.id, {{.gpu = 0, .epoch = 1}});  // the same door
  EXPECT_EQ(describe(job.id), "running on node0/0");
  lose_server(0);  // the old one ends at last
  pause(100);
  EXPECT_EQ(describe(job.id), "running on node0/0");
  EXPECT_FALSE(called("release 1:0 from node0 epoch 1"));
}

// Stopped for longer than every lease. What has come meanwhile lies unread.
TEST_F(Leases, a_scheduler_that_did_not_run_blames_nobody) {
  add_server("node0", 1);
  const Submitted job = run(1);
  sleep_us((kLeaseMs + 2 * kStalledMs) * 1000);
  pause(3 * kTickMs);
  EXPECT_EQ(describe(job.id), "running on node0/0");
}

}  // namespace
}  // namespace tide::sched
