// The books (books.h): counted by the tick, with what agents say of how long their GPUs have worked.

#include "base/clock.h"
#include "scheduler/reconciler.h"

namespace tide::sched {
namespace {

constexpr auto kPatience = 2 * kj::SECONDS;

}  // namespace

void Reconciler::keep_books(uint64_t now) {
  const std::vector<Job*> jobs = books_.count();
  if (!jobs.empty()) (void)save(jobs);
  books_.carry(now);
  if (books_.wants_usage(now)) hear_usage();
}

kj::Promise<std::shared_ptr<const Reconciler::Usages>> Reconciler::ask_usage() {
  using Answer = capnp::Response<control::Agent::UsageResults>;
  auto heard = std::make_shared<Usages>();
  auto asked = kj::Vector<kj::Promise<void>>();
  for (auto& [name, link] : links_) {
    auto answer = link->agent.usageRequest().send().then(
        [heard, server = name](Answer&& a) { heard->emplace(server, kj::mv(a)); });
    asked.add(timer_.timeoutAfter(kPatience, kj::mv(answer)).catch_([](kj::Exception&&) {}));
  }
  return kj::joinPromises(asked.releaseAsArray()).then([heard]() -> std::shared_ptr<const Usages> { return heard; });
}

kj::Promise<std::shared_ptr<const Reconciler::Usages>> Reconciler::usage() {
  if (usages_ != nullptr && now_ns() - usages_ns_ < uint64_t(kUsageFreshMs) * 1'000'000) return usages_;
  KJ_IF_MAYBE (asking, asking_) return asking->addBranch();
  auto fork = ask_usage()
                  .then([this](std::shared_ptr<const Usages> heard) {
                    usages_ = heard;
                    usages_ns_ = now_ns();
                    tasks_.add(kj::evalLater([this] { asking_ = nullptr; }));
                    return heard;
                  })
                  .fork();
  auto mine = fork.addBranch();
  asking_ = kj::mv(fork);
  return mine;
}

// At most one question is under way.
void Reconciler::hear_usage() {
  if (!books_.state().kept || asks_usage_) return;
  asks_usage_ = true;
  tasks_.add(ask_usage().then([this](std::shared_ptr<const Usages> answers) {
    asks_usage_ = false;
    std::vector<UsageSeen> seen;
    for (const auto& [server, answer] : *answers) {
      for (const auto each : answer.getVgpus()) {
        seen.push_back({.job = each.getJob().cStr(),
                        .vgpu = each.getVgpu(),
                        .epoch = each.getEpoch(),
                        .used_ms = each.getUsedMs()});
      }
    }
    books_.heard(seen);
  }));
}

}  // namespace tide::sched
