// The scheduler as a whole, with agents that only pretend.

#include <signal.h>
#include <sys/resource.h>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Pools : public PoolFixture {};

TEST_F(Pools, a_job_is_placed_and_its_gpus_are_free_when_it_ends) {
  add_server("node0", 2);
  Submitted job = run(2);
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  EXPECT_TRUE(called("place 1:0 on node0/0 epoch 1"));
  auto ended = KJ_ASSERT_NONNULL(job.handle).endedRequest();
  ended.setExitStatus(3);
  EXPECT_EQ(error_of(ended.send().ignoreResult()), "");
  EXPECT_EQ(describe(job.id), "ended: its command ended with status 3");
  pause(50);
  EXPECT_TRUE(called("release 1:0 from node0 epoch 1"));
  EXPECT_TRUE(log_.leases.empty());
  EXPECT_EQ(describe(run(2).id), "running on node0/0 node0/1");
}

TEST_F(Pools, a_dropped_handle_ends_the_job) {
  add_server("node0", 1);
  Submitted first = run(1), second;
  EXPECT_EQ(submit(1, 1, &second), "");
  first.handle = nullptr;
  EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(second.handle).runningRequest().send().ignoreResult()), "");
  EXPECT_EQ(describe(first.id), "ended: its `tide run` is gone");
}

TEST_F(Pools, a_lost_connection_ends_the_job) {
  add_server("node0", 1);
  auto other = std::make_unique<Peer>(io_, daemon_->address());
  auto request = other->pool.submitRequest();
  request.getSpec().setGpus(1);
  auto answer = request.send().wait(io_.waitScope);
  const std::string id = answer.getId();
  EXPECT_EQ(error_of(answer.getHandle().runningRequest().send().ignoreResult()), "");
  auto waiting = answer.getHandle().waitRequest().send();  // as `tide run` does; it must not keep the job alive
  pause(20);
  other->stream->shutdownWrite();
  wait_for(id, "ended: its `tide run` is gone");
}

TEST_F(Pools, an_arrival_shrinks_and_an_end_grows) {
  add_server("node0", 4);
  const Submitted wide = run(4);
  Submitted narrow = run(2);
  EXPECT_EQ(describe(wide.id), "running on node0/0 node0/1 node0/0 node0/1");
  EXPECT_EQ(describe(narrow.id), "running on node0/2 node0/3");
  EXPECT_EQ(log_.moves_at_once_max, 1u) << "two vGPUs of one job moved at once";
  narrow.handle = nullptr;
  wait_for(wide.id, "running on node0/0 node0/1 node0/2 node0/3");
}

TEST_F(Pools, jobs_move_side_by_side) {
  add_server("node0", 4);
  log_.move_ms = 50;
  const Submitted a = run(2), b = run(2);
  auto first = peer_->pool.resizeRequest();
  first.setJob(a.id);
  first.setGpus(1);
  auto second = peer_->pool.resizeRequest();
  second.setJob(b.id);
  second.setGpus(1);
  auto both = kj::heapArrayBuilder<kj::Promise<void>>(2);
  both.add(first.send().ignoreResult());
  both.add(second.send().ignoreResult());
  EXPECT_EQ(error_of(kj::joinPromises(both.finish())), "");
  EXPECT_EQ(log_.moves_at_once_max, 2u);
}

TEST_F(Pools, resize_reports_what_was_moved) {
  add_server("node0", 2);
  add_server("node1", 2);
  const Submitted job = run(4);
  MoveTotals totals;
  EXPECT_EQ(resize(job.id, 1, &totals), "");
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/0 node0/0 node0/0");
  EXPECT_EQ(totals.vgpus, 3u);
  EXPECT_EQ(totals.bytes, 3000u);
  EXPECT_EQ(totals.pause_ms, 2.0);
  EXPECT_EQ(totals.pause_bytes, 300u);
  EXPECT_EQ(totals.drain_ms, 0.25);
  EXPECT_EQ(totals.copy_ms, 0.5);
  EXPECT_EQ(totals.restore_ms, 0.25) << "of the longest pause";
  EXPECT_TRUE(called("prepare 1:2 on node0/0 epoch 2"));
  EXPECT_EQ(resize(job.id, 4, &totals), "");
  EXPECT_EQ(totals.vgpus, 3u);
  EXPECT_EQ(resize(job.id, 4, &totals), "");
  EXPECT_EQ(totals.vgpus, 0u);
}

TEST_F(Pools, resize_beyond_the_job_is_refused) {
  add_server("node0", 4);
  const Submitted job = run(3, 2);
  MoveTotals totals;
  EXPECT_EQ(resize(job.id, 1, &totals), "job 1 can have 2 to 3 physical GPUs (its --min and -g), not 1");
  EXPECT_EQ(resize(job.id, 4, &totals), "job 1 can have 2 to 3 physical GPUs (its --min and -g), not 4");
  EXPECT_EQ(resize("nobody", 1, &totals), "there is no running job nobody; `tide jobs --ended` lists those that ended");
}

TEST_F(Pools, a_failed_move_leaves_the_vgpu_where_it_was_and_is_tried_again) {
  add_server("node0", 2);
  const Submitted job = run(2);
  log_.fail["move"] = "the link is down";
  MoveTotals totals;
  const std::string error = resize(job.id, 1, &totals);
  EXPECT_NE(error.find("could not move from node0/1 to node0/0: the link is down"), std::string::npos) << error;
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  EXPECT_TRUE(called("cancel 1:1 epoch 2"));
  log_.fail.clear();
  wait_for(job.id, "running on node0/0 node0/0");
  EXPECT_TRUE(called("move 1:1 on node0/0 epoch 3")) << "an epoch was used twice";
}

TEST_F(Pools, a_job_that_cannot_be_placed_ends_with_the_reason) {
  add_server("node0", 1);
  log_.fail["place"] = "no driver";
  Submitted job;
  EXPECT_EQ(submit(1, 1, &job), "");
  pause(100);
  EXPECT_NE(describe(job.id).find("virtual GPU 0 could not start on node0/0: no driver"), std::string::npos)
      << describe(job.id);
  log_.fail.clear();
  wait_for(job.id, "running on node0/0");
}

TEST_F(Pools, migrate_goes_where_it_is_told_and_stays) {
  add_server("node0", 2);
  add_server("node1", 2);
  const Submitted job = run(2);
  auto request = peer_->pool.migrateRequest();
  request.setJob(job.id);
  request.setVgpu(1);
  request.setServer("node1");
  request.setGpu(1);
  EXPECT_EQ(error_of(request.send().ignoreResult()), "");
  EXPECT_EQ(describe(job.id), "running on node0/0 node1/1");
  const Submitted other = run(1);
  EXPECT_EQ(describe(job.id), "running on node0/0 node1/1");
  auto taken = peer_->pool.migrateRequest();
  taken.setJob(other.id);
  taken.setVgpu(-1);
  taken.setServer("node1");
  taken.setGpu(1);
  EXPECT_EQ(error_of(taken.send().ignoreResult()), "GPU node1/1 serves job 1; choose a free one (`tide gpus`)");
}

TEST_F(Pools, what_does_not_fit_is_refused_or_waits_with_a_reason) {
  Submitted none;
  EXPECT_EQ(submit(1, 1, &none), "the pool has no GPUs; `tide gpus` shows its servers, `tide doctor` what is wrong");
  add_server("node0", 2);
  EXPECT_NE(submit(3, 1, &none, false), "");
  EXPECT_EQ(submit(3, 3, &none), "the pool has 2 GPUs; --min 3 asks for more. Use --min 2 or less");
  EXPECT_EQ(submit(65, 1, &none), "a job has 1 to 64 GPUs, not 65");
  EXPECT_EQ(submit(0, 1, &none), "a job has 1 to 64 GPUs, not 0");
  const Submitted first = run(2, 2);
  Submitted second;
  EXPECT_EQ(submit(1, 1, &second), "");
  pause(50);
  EXPECT_EQ(describe(second.id), "queued: needs 1 GPU; 0 of 2 can be free while the jobs before it keep their minimum");
}

TEST_F(Pools, kill_ends_a_job_and_tells_its_holder) {
  add_server("node0", 1);
  Submitted job = run(1);
  auto waiting = KJ_ASSERT_NONNULL(job.handle).waitRequest().send();
  auto request = peer_->pool.killRequest();
  request.setJob(job.id);
  EXPECT_EQ(error_of(request.send().ignoreResult()), "");
  EXPECT_STREQ(waiting.wait(io_.waitScope).getJob().getReason().cStr(), "killed by `tide kill`");
}

TEST_F(Pools, a_lost_agent_ends_who_ran_there) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted first = run(1), second = run(1);
  lose_server(0);
  wait_for(first.id, "ended: its GPU server node0 was lost (no sign of life from its agent)");
  EXPECT_EQ(describe(second.id), "running on node1/0");
}

TEST_F(Pools, an_agent_that_comes_back_in_time_keeps_its_jobs) {
  add_server("node0", 1);
  const Submitted job = run(1);
  lose_server(0);
  pause(100);
  capnp::MallocMessageBuilder message;
  auto lease = message.initRoot<control::Lease>();
  lease.setJob(job.id);
  lease.setEpoch(1);
  add_server("node0", 1, {lease.asReader()});
  pause(100);
  EXPECT_EQ(describe(job.id), "running on node0/0");
  lose_server(0);
  pause(100);
  add_server("node0", 1);
  wait_for(job.id, "ended: its virtual GPU 0 was lost when server node0 restarted");
}

TEST_F(Pools, resize_says_so_when_a_server_is_away) {
  add_server("node0", 2);
  const Submitted job = run(2);
  lose_server(0);
  pause(100);
  MoveTotals totals;
  EXPECT_NE(resize(job.id, 1, &totals).find("job 1 is still on 2 GPUs"), std::string::npos);
}

TEST_F(Pools, what_an_agent_should_not_serve_is_released) {
  capnp::MallocMessageBuilder message;
  auto lease = message.initRoot<control::Lease>();
  lease.setJob("77");
  lease.setVgpu(2);
  lease.setEpoch(5);
  add_server("node0", 1, {lease.asReader()});
  pause(50);
  EXPECT_TRUE(called("release 77:2 from node0 epoch 5"));
}

TEST_F(Pools, a_second_server_of_the_same_name_is_refused) {
  add_server("node0", 1);
  Peer other(io_, daemon_->address());
  auto request = other.pool.registerRequest();
  fill_server_info(request.initServer(), "node0", 1, 16);
  request.getServer().setEndpoint("host=other;unix=/nowhere;tcp=127.0.0.1:2");
  request.setAgent(make_fake_agent("node0", log_, io_.provider->getTimer()));
  EXPECT_EQ(error_of(request.send().ignoreResult()),
            "a server named node0 is in the pool already; give this one another name");
}

TEST_F(Pools, a_restarted_scheduler_takes_running_jobs_over) {
  add_server("node0", 2);
  Submitted job = run(2);
  const std::string token = job.token;
  stop();
  job.handle = nullptr;
  agents_.clear();
  registrations_.clear();
  start();
  auto wrong = peer_->pool.reattachRequest();
  wrong.setId(job.id);
  wrong.setToken(kj::StringPtr("wrong").asBytes());
  EXPECT_EQ(error_of(wrong.send().ignoreResult()), "there is no running job 1 with this token");
  auto request = peer_->pool.reattachRequest();
  request.setId(job.id);
  request.setToken(kj::arrayPtr(reinterpret_cast<const kj::byte*>(token.data()), token.size()));
  job.handle = request.send().wait(io_.waitScope).getHandle();
  capnp::MallocMessageBuilder message;
  auto leases = message.initRoot<control::ServerInfo>().initLeases(2);
  for (uint32_t v = 0; v < 2; ++v) {
    leases[v].setJob(job.id);
    leases[v].setVgpu(v);
    leases[v].setGpu(v);
    leases[v].setEpoch(1);
  }
  log_.calls.clear();
  add_server("node0", 2, {leases[0].asReader(), leases[1].asReader()});
  pause(100);
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  EXPECT_TRUE(log_.calls.empty()) << log_.calls[0];
  MoveTotals totals;
  EXPECT_EQ(resize(job.id, 1, &totals), "");
  EXPECT_TRUE(called("move 1:1 on node0/0 epoch 2"));
}

TEST_F(Pools, a_full_disk_refuses_new_jobs_and_leaves_running_ones_alone) {
  add_server("node0", 4);
  Submitted job = run(2), refused;
  signal(SIGXFSZ, SIG_IGN);
  rlimit before, limit;
  getrlimit(RLIMIT_FSIZE, &before);
  limit = before;
  limit.rlim_cur = std::filesystem::file_size(directory_ + "/state/jobs.sqlite-wal");
  setrlimit(RLIMIT_FSIZE, &limit);
  const std::string error = submit(1, 1, &refused);
  EXPECT_NE(error.find("jobs.sqlite"), std::string::npos) << error;
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  auto ended = KJ_ASSERT_NONNULL(job.handle).endedRequest();
  EXPECT_EQ(error_of(ended.send().ignoreResult()), "");
  pause(100);
  EXPECT_TRUE(log_.leases.empty()) << "its GPUs are not free";
  setrlimit(RLIMIT_FSIZE, &before);
  pause(500);
  stop();
  agents_.clear();
  registrations_.clear();
  job.handle = nullptr;
  start();
  EXPECT_EQ(describe(job.id), "ended: finished");
}

TEST_F(Pools, shutdown_ends_jobs_and_releases_their_gpus) {
  add_server("node0", 1);
  Submitted job = run(1);
  EXPECT_EQ(error_of(peer_->pool.shutdownRequest().send().ignoreResult()), "");
  EXPECT_TRUE(called("release 1:0 from node0 epoch 1"));
  EXPECT_EQ(error_of(daemon_->run().ignoreResult()), "");
  job.handle = nullptr;
}

}  // namespace
}  // namespace tide::sched
