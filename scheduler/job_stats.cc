#include "scheduler/job_stats.h"

#include <algorithm>

namespace tide::sched {
namespace {
constexpr auto kPatience = 2 * kj::SECONDS;
}

JobStats::JobStats(kj::Array<kj::Maybe<Answer>> answers) : answers_(kj::mv(answers)) {
  for (auto& answer : answers_) {
    KJ_IF_MAYBE (some, answer) {
      for (const auto each : some->getVgpus()) vgpus_.push_back(each);
    }
  }
  std::sort(vgpus_.begin(), vgpus_.end(), [](const auto& a, const auto& b) { return a.getVgpu() < b.getVgpu(); });
}

kj::Promise<JobStats> JobStats::ask(PoolCore& core, const Job& job) {
  std::set<std::string> servers;
  for (const Vgpu& vgpu : job.vgpus) {
    if (!vgpu.at.none()) servers.insert(vgpu.at.server);
  }
  auto asked = kj::Vector<kj::Promise<kj::Maybe<Answer>>>();
  for (const std::string& server : servers) {
    KJ_IF_MAYBE (agent, core.reconciler.agent(server)) {
      auto request = agent->statsRequest();
      request.setJob(job.record.id());
      auto limited = core.timer.timeoutAfter(kPatience, request.send().then([](Answer&& a) { return a; }));
      asked.add(limited.then([](Answer&& a) -> kj::Maybe<Answer> { return kj::mv(a); },
                             [](kj::Exception&&) -> kj::Maybe<Answer> { return nullptr; }));
    }
  }
  return kj::joinPromises(asked.releaseAsArray()).then([](kj::Array<kj::Maybe<Answer>> answers) {
    return JobStats(kj::mv(answers));
  });
}

}  // namespace tide::sched
