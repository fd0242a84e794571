// What a pool says of what its jobs have had: over restarts, moves and a history that cannot be written.

#include <filesystem>
#include <fstream>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Reports : public PoolFixture {
 protected:
  using Answer = capnp::Response<control::Pool::ReportResults>;
  Answer report(const char* by = "job") {
    auto request = peer_->pool.reportRequest();
    request.setBy(by);
    request.setSinceMs(1);
    return request.send().wait(io_.waitScope);
  }
  static double held_s(const Answer& answer, const std::string& key) {
    for (const auto row : answer.getReport().getRows()) {
      if (row.getKey() == key.c_str()) return row.getHeldGpuS();
    }
    return 0;
  }
  static double used_s(const Answer& answer) { return answer.getReport().getTotal().getUsedGpuS(); }
  void end(Submitted* job) {
    auto request = KJ_ASSERT_NONNULL(job->handle).endedRequest();
    EXPECT_EQ(error_of(request.send().ignoreResult()), "");
    job->handle = nullptr;
  }
  std::string history_problem() {
    return peer_->pool.statusRequest().send().wait(io_.waitScope).getHistory().getProblem().cStr();
  }
};

TEST_F(Reports, a_job_has_held_its_gpus_as_long_as_it_ran_also_over_a_restart) {
  add_server("node0", 4);
  const uint64_t begin = now_ns();
  Submitted job = run(2, 2);
  const uint64_t runs = now_ns();
  pause(1200);
  log_.used_ms = 700;
  restart({&job}, {"node0"}, 4);
  pause(1200);
  const uint64_t before = now_ns();
  end(&job);
  const uint64_t after = now_ns();
  const Answer answer = report();
  const double least = 2 * double(before - runs) / 1e9, most = 2 * double(after - begin) / 1e9;
  EXPECT_GE(held_s(answer, job.id), least - 0.5);  // a tick for each of the two GPUs
  EXPECT_LE(held_s(answer, job.id), most + 0.1);
  EXPECT_NEAR(answer.getReport().getTotal().getHeldGpuS(), held_s(answer, job.id), 1e-6);
  EXPECT_GT(answer.getReport().getCapacityGpuS(), 4.0);
  EXPECT_EQ(answer.getReport().getTotal().getStarted(), 1u);
  wait_for(job.id, "ended: finished");
  pause(1500);
  EXPECT_NEAR(held_s(report(), job.id), held_s(answer, job.id), 1e-6) << "nothing comes twice";
  EXPECT_EQ(held_s(report("queue"), "default"), held_s(report(), job.id));
}

TEST_F(Reports, time_without_a_gpu_is_not_held_and_what_agents_count_is_used) {
  add_server("node0", 1);
  Submitted first = run(1);
  Submitted second;
  ASSERT_EQ(submit(1, 1, &second), "");  // waits
  pause(500);
  MoveTotals totals;
  std::string queued;
  ASSERT_EQ(suspend(first.id, &totals), "");
  const double held = held_s(report(), first.id);
  EXPECT_GE(held, 0.3);
  wait_for(second.id, "running on node0/0");
  pause(600);
  EXPECT_NEAR(held_s(report(), first.id), held, 0.01);
  EXPECT_GT(held_s(report(), second.id), 0.4);
  log_.used_ms = 250;
  const uint64_t until = now_ns() + 10'000'000'000;
  while (used_s(report()) < 0.25 && now_ns() < until) pause(100);
  EXPECT_NEAR(used_s(report()), 0.25, 1e-6);
}

TEST_F(Reports, a_history_that_cannot_be_written_stops_no_job_and_loses_nothing) {
  const std::string path = directory_ + "/state/history.sqlite";
  add_server("node0", 2);
  Submitted job = run(1);
  pause(1500);
  stop();
  job.handle = nullptr;
  agents_.clear();
  registrations_.clear();
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
  std::ofstream(path) << std::string(10'000, 'x');
  start();
  auto request = peer_->pool.reattachRequest();
  request.setId(job.id);
  request.setToken(kj::StringPtr(job.token.c_str(), job.token.size()).asBytes());
  job.handle = request.send().wait(io_.waitScope).getHandle();
  add_again("node0", 2);
  Submitted other = run(1);
  pause(1500);
  EXPECT_NE(history_problem().find("damaged"), std::string::npos) << history_problem();
  EXPECT_NE(error_of(peer_->pool.reportRequest().send().ignoreResult()), "");
  EXPECT_EQ(describe(other.id), "running on node0/1");
  end(&job);
  std::filesystem::remove(path);
  const uint64_t until = now_ns() + 15'000'000'000;
  while (!history_problem().empty() && now_ns() < until) pause(200);
  EXPECT_EQ(history_problem(), "");
  EXPECT_GT(held_s(report(), job.id), 1.0) << "what was written while it was damaged";
  EXPECT_GT(held_s(report(), other.id), 1.0);
}

}  // namespace
}  // namespace tide::sched
