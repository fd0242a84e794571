// Jobs with a part of a GPU each: the scheduler as a whole, with agents that only pretend. A GPU has 16 bytes.

#include <capnp/message.h>

#include <array>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Parts : public PoolFixture {
 protected:
  std::string submit_part(uint32_t part, Submitted* job, uint64_t memory_bytes = 0) {
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(1);
    request.getSpec().setPart(part);
    request.getSpec().setMemoryBytes(memory_bytes);
    return error_of(request.send().then([job](auto&& answer) {
      job->id = answer.getId();
      job->token = std::string(reinterpret_cast<const char*>(answer.getToken().begin()), answer.getToken().size());
      job->handle = answer.getHandle();
    }));
  }
  Submitted run_part(uint32_t part, uint64_t memory_bytes = 0) {
    Submitted job;
    EXPECT_EQ(submit_part(part, &job, memory_bytes), "");
    EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(job.handle).runningRequest().send().ignoreResult()), "");
    return job;
  }
  std::string migrate(const std::string& id, const std::string& server, uint32_t gpu) {
    auto request = peer_->pool.migrateRequest();
    request.setJob(id);
    request.setVgpu(-1);
    request.setServer(server);
    request.setGpu(gpu);
    return error_of(request.send().ignoreResult());
  }
  // "node0/0: 1 (500), 2 (250); node0/1: "
  std::string gpus() {
    auto answer = peer_->pool.gpusRequest().send().wait(io_.waitScope);
    std::string text;
    for (const auto gpu : answer.getGpus()) {
      text += (text.empty() ? "" : "; ") + to_text(GpuId{gpu.getServer(), gpu.getInfo().getIndex()}) + ":";
      for (const auto share : gpu.getShares())
        text += " " + std::string(share.getJob()) + " (" + std::to_string(share.getPart()) + ")";
    }
    return text;
  }
  std::vector<capnp::RemotePromise<control::Pool::SubmitResults>> kept_;

  uint64_t memory_of(const std::string& id) {
    auto request = peer_->pool.jobRequest();
    request.setJob(id);
    return request.send().wait(io_.waitScope).getJob().getMemoryBytes();
  }
};

TEST_F(Parts, two_halves_run_on_one_gpu_and_a_third_waits_for_the_end_of_one) {
  add_server("node0", 1);
  Submitted first = run_part(500), second = run_part(500), third;
  EXPECT_EQ(describe(first.id), "running on node0/0");
  EXPECT_EQ(describe(second.id), "running on node0/0");
  EXPECT_EQ(memory_of(second.id), 8u) << "half of the GPU's";
  EXPECT_EQ(submit_part(250, &third), "");
  pause(50);
  EXPECT_EQ(describe(third.id),
            "queued: needs 0.25 of a GPU; none that is shared has so much left, and 0 of 1 can be free while the jobs "
            "before it keep their minimum");
  EXPECT_EQ(gpus(), "node0/0: 1 (500) 2 (500)");
  first.handle = nullptr;
  wait_for(third.id, "running on node0/0");
  EXPECT_EQ(gpus(), "node0/0: 2 (500) 3 (250)");
}

TEST_F(Parts, sixteen_halves_on_eight_gpus_lie_two_on_each) {
  add_server("node0", 4);
  add_server("node1", 4);
  std::array<Submitted, 16> jobs;
  for (Submitted& job : jobs) EXPECT_EQ(submit_part(500, &job), "");
  std::map<std::string, int> count;
  for (Submitted& job : jobs) {
    EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(job.handle).runningRequest().send().ignoreResult()), "");
    ++count[describe(job.id)];
  }
  EXPECT_EQ(count.size(), 8u) << gpus();
  for (const auto& [place, jobs_there] : count) EXPECT_EQ(jobs_there, 2) << place;
}

TEST_F(Parts, whole_gpus_stay_free_for_who_wants_all_of_one) {
  add_server("node0", 2);
  const Submitted quarter = run_part(250), half = run_part(500), whole = run(1);
  EXPECT_EQ(gpus(), "node0/0: 1 (250) 2 (500); node0/1: 3 (1000)");
}

TEST_F(Parts, memory_that_somebody_asks_for_counts_beside_the_part) {
  add_server("node0", 1);
  const Submitted first = run_part(250, 12);
  Submitted large, none;
  EXPECT_EQ(submit_part(250, &large, 5), "");
  const Submitted small = run_part(250);
  pause(50);
  EXPECT_EQ(gpus(), "node0/0: 1 (250) 3 (250)");
  EXPECT_EQ(memory_of(small.id), 4u);
  EXPECT_EQ(submit_part(500, &none, 17),
            "1 virtual GPUs with that --gpu-memory do not fit into the pool's 1 GPU. Ask for less memory");
}

TEST_F(Parts, what_makes_no_sense_is_refused) {
  add_server("node0", 2);
  Submitted job;
  EXPECT_EQ(submit_part(5, &job), "a part of a GPU is 0.01 to 1, not 0.005");
  EXPECT_EQ(submit_part(1500, &job), "a part of a GPU is 0.01 to 1, not 1.5");
  auto request = peer_->pool.submitRequest();
  request.getSpec().setGpus(2);
  request.getSpec().setPart(500);
  EXPECT_EQ(error_of(request.send().ignoreResult()), "a job with a part of a GPU has one virtual GPU, and no --min");
  const Submitted half = run_part(500);
  MoveTotals totals;
  EXPECT_EQ(resize(half.id, 1, &totals),
            "job 1 has 0.5 of a GPU, and that for its life; `tide resize` is for jobs with several virtual GPUs");
}

TEST_F(Parts, leases_say_what_a_part_counts_and_who_goes_first) {
  add_server("node0", 2);
  const auto submit = [this](uint32_t part, uint32_t weight, control::JobClass job_class) {
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(1);
    request.getSpec().setPart(part);
    request.getSpec().setWeight(weight);
    request.getSpec().setJobClass(job_class);
    kept_.push_back(request.send());
    return error_of(kept_.back().getHandle().runningRequest().send().ignoreResult());
  };
  EXPECT_EQ(submit(500, 0, control::JobClass::BATCH), "");
  EXPECT_EQ(submit(250, 3, control::JobClass::INTERACTIVE), "");
  EXPECT_EQ(submit(0, 0, control::JobClass::INFERENCE), "");
  EXPECT_EQ((log_.shares[{"1", 0}]), "500 x 0");
  EXPECT_EQ((log_.shares[{"2", 0}]), "250 x 3 first");
  EXPECT_EQ((log_.shares[{"3", 0}]), "1000 x 0 first");
  const std::string refusal = "--weight is 1 to 1000, of a job with a part of a GPU (-g 0.5)";
  EXPECT_EQ(submit(500, 1001, control::JobClass::BATCH), refusal);
  EXPECT_EQ(submit(0, 2, control::JobClass::BATCH), refusal);
}

TEST_F(Parts, migrate_goes_where_there_is_room) {
  add_server("node0", 3);
  const Submitted half = run_part(500), large = run_part(750), whole = run(1);
  EXPECT_EQ(gpus(), "node0/0: 1 (500); node0/1: 2 (750); node0/2: 3 (1000)");
  EXPECT_EQ(
      migrate(half.id, "node0", 1),
      "GPU node0/1 has 0.25 left beside job 2, and 0 MiB of its memory; job 1 needs 0.5 and 0 MiB. Choose another "
      "one (`tide gpus`)");
  EXPECT_EQ(migrate(half.id, "node0", 2), "GPU node0/2 serves job 3; choose a free one (`tide gpus`)");
  EXPECT_EQ(migrate(whole.id, "node0", 0), "GPU node0/0 serves job 1; choose a free one (`tide gpus`)");
  const Submitted quarter = run_part(250);
  EXPECT_EQ(gpus(), "node0/0: 1 (500); node0/1: 2 (750) 4 (250); node0/2: 3 (1000)");
  EXPECT_EQ(migrate(quarter.id, "node0", 0), "");
  EXPECT_EQ(gpus(), "node0/0: 1 (500) 4 (250); node0/1: 2 (750); node0/2: 3 (1000)");
}

TEST_F(Parts, a_suspended_part_is_others_and_comes_back_where_there_is_room) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted first = run_part(500), second = run_part(500);
  MoveTotals totals;
  EXPECT_EQ(suspend(first.id, &totals), "");
  const Submitted third = run_part(500);
  EXPECT_EQ(gpus(), "node0/0: 2 (500) 3 (500); node1/0:");
  std::string queued;
  EXPECT_EQ(resume(first.id, &totals, &queued), "");
  EXPECT_EQ(gpus(), "node0/0: 2 (500) 3 (500); node1/0: 1 (500)");
}

TEST_F(Parts, a_lost_server_ends_those_that_share_its_gpu_and_no_others) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted first = run_part(500), second = run_part(500), other = run_part(500);
  lose_server(0);
  wait_for(first.id, "ended: its GPU server node0 was lost (no sign of life from its agent)");
  wait_for(second.id, "ended: its GPU server node0 was lost (no sign of life from its agent)");
  EXPECT_EQ(describe(other.id), "running on node1/0");
}

TEST_F(Parts, a_restarted_scheduler_knows_who_has_which_part) {
  add_server("node0", 1);
  Submitted jobs[] = {run_part(500), run_part(250)};
  stop();
  for (Submitted& job : jobs) job.handle = nullptr;
  agents_.clear();
  registrations_.clear();
  start();
  for (Submitted& job : jobs) {
    auto request = peer_->pool.reattachRequest();
    request.setId(job.id);
    request.setToken(kj::arrayPtr(reinterpret_cast<const kj::byte*>(job.token.data()), job.token.size()));
    job.handle = request.send().wait(io_.waitScope).getHandle();
  }
  capnp::MallocMessageBuilder message;
  auto leases = message.initRoot<control::ServerInfo>().initLeases(2);
  for (uint32_t i = 0; i < 2; ++i) {
    leases[i].setJob(jobs[i].id);
    leases[i].setEpoch(1);
  }
  log_.calls.clear();
  add_server("node0", 1, {leases[0].asReader(), leases[1].asReader()});
  pause(100);
  EXPECT_EQ(gpus(), "node0/0: 1 (500) 2 (250)");
  EXPECT_TRUE(log_.calls.empty()) << log_.calls[0];
  Submitted half;
  EXPECT_EQ(submit_part(500, &half), "");
  const Submitted quarter = run_part(250);
  EXPECT_EQ(gpus(), "node0/0: 1 (500) 2 (250) 4 (250)");
}

}  // namespace
}  // namespace tide::sched
