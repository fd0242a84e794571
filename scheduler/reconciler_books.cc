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

kj::Promise<Reconciler::Usages> Reconciler::ask_usage() {
  using Answer = capnp::Response<control::Agent::UsageResults>;
  auto asked = kj::Vector<kj::Promise<kj::Maybe<Answer>>>();
  for (auto& [name, link] : links_) {
    auto limited = timer_.timeoutAfter(kPatience, link->agent.usageRequest().send().then([](Answer&& a) { return kj::mv(a); }));
    asked.add(limited.then([](Answer&& a) -> kj::Maybe<Answer> { return kj::mv(a); },
                           [](kj::Exception&&) -> kj::Maybe<Answer> { return nullptr; }));
  }
  return kj::joinPromises(asked.releaseAsArray());
}

// At most one question is under way.
void Reconciler::hear_usage() {
  if (!books_.state().kept || asks_usage_) return;
  asks_usage_ = true;
  tasks_.add(ask_usage().then([this](Usages answers) {
    asks_usage_ = false;
    std::vector<UsageSeen> seen;
    for (auto& answer : answers) {
      KJ_IF_MAYBE (some, answer) {
        for (const auto each : some->getVgpus()) {
          seen.push_back({.job = each.getJob().cStr(),
                          .vgpu = each.getVgpu(),
                          .epoch = each.getEpoch(),
                          .used_ms = each.getUsedMs()});
        }
      }
    }
    books_.heard(seen);
  }));
}

}  // namespace tide::sched
