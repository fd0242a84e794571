#include "tools/tide/runner.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "tools/tide/home.h"

namespace tide::cli {
namespace {

constexpr uint32_t kWhyMs = 300;
constexpr uint32_t kConnectMs = 1000, kAgainMs = 200;
constexpr uint32_t kAskMs = 1000, kSilentMs = 2000;  // with several schedulers
constexpr uint64_t kReportNs = 10'000'000'000;
constexpr uint64_t kSayAwayNs = 10'000'000'000;

}  // namespace

Outcome Runner::submit(const Ask& ask, const std::string& command) {
  std::string address;
  Outcome outcome = find_pool(options_, &address);
  if (outcome.ok()) outcome = Connection::open(io_, address, &connection_);
  found_ = address;
  addresses_ = kj::heap<sched::Addresses>(address);
  if (!outcome.ok()) return outcome;
  auto request = connection_->pool().submitRequest();
  fill_spec(request.initSpec(), ask, command, uint32_t(getpid()));
  using Answer = capnp::Response<control::Pool::SubmitResults>;
  kj::Maybe<Answer> answer;
  outcome = await<Answer>(io_, request.send().then([](Answer&& a) { return kj::mv(a); }), &answer);
  KJ_IF_MAYBE (got, answer) {
    granted_ = {.id = got->getId(),
                .token = std::string(reinterpret_cast<const char*>(got->getToken().begin()), got->getToken().size()),
                .door = got->getDoorAddress(),
                .gpus = ask.gpus};
    handle_ = got->getHandle();
  }
  return outcome;
}

kj::Promise<void> Runner::say_why() {
  return io_.provider->getTimer().afterDelay(kWhyMs * kj::MILLISECONDS).then([this] {
    return KJ_ASSERT_NONNULL(handle_).infoRequest().send().then([this](auto&& answer) {
      const std::string reason = answer.getJob().getReason();
      // How long it waits for its turn changes all the time, and is said once.
      const std::string what = answer.getJob().getTurn().getWaits() ? "its turn" : reason;
      if (answer.getJob().getState() == control::JobState::QUEUED && what != said_) {
        fprintf(stderr, "tide: job %s waits: %s\n", granted_.id.c_str(), reason.c_str());
        said_ = what;
      }
      return say_why();
    });
  });
}

kj::Promise<void> Runner::running(bool quiet) {
  auto started = KJ_ASSERT_NONNULL(handle_).runningRequest().send().ignoreResult();
  if (!quiet) started = started.exclusiveJoin(say_why());
  started = started.exclusiveJoin(hear_of_it());
  return started.then(
      [this, quiet]() -> kj::Promise<void> {
        started_ = true;
        if (!quiet && !said_.empty()) fprintf(stderr, "tide: job %s runs\n", granted_.id.c_str());
        return kj::READY_NOW;
      },
      [this, quiet](kj::Exception&& e) { return come_back(kj::mv(e)).then([this, quiet] { return running(quiet); }); });
}

kj::Promise<std::string> Runner::ended_by_pool() {
  return KJ_ASSERT_NONNULL(handle_)
      .waitRequest()
      .send()
      .then([](auto&& answer) { return std::string(answer.getJob().getReason()); })
      .exclusiveJoin(hear_of_it().then([] { return std::string(); }))
      .catch_([this](kj::Exception&& e) {
        return come_back(kj::mv(e)).then(
            [this] { return ended_by_pool(); },
            [](kj::Exception&& refused) -> kj::Promise<std::string> { return remote_error(refused); });
      });
}

kj::Promise<void> Runner::come_back(kj::Exception&& e) {
  if (e.getType() != kj::Exception::Type::DISCONNECTED) return kj::mv(e);
  log(LogLevel::kDebug, "the scheduler is away: %s", e.getDescription().cStr());
  away_ns_ = now_ns();
  said_away_ = false;
  return reattach();
}

kj::Promise<void> Runner::try_again() {
  if (!said_away_ && now_ns() - away_ns_ > kSayAwayNs) {
    fprintf(stderr, "tide: the scheduler does not answer; job %s %s\n", granted_.id.c_str(),
            started_ ? "runs on without it" : "waits for it");
    said_away_ = true;
  }
  return io_.provider->getTimer().afterDelay(kAgainMs * kj::MILLISECONDS).then([this] { return reattach(); });
}

kj::Promise<void> Runner::reattach() {
  std::string address;
  if (!find_pool(options_, &address).ok()) return try_again();
  if (address != found_) addresses_ = kj::heap<sched::Addresses>(address);
  found_ = address;
  return Connection::connect(io_, *addresses_, kConnectMs)
      .then([this](kj::Own<Connection> connection) { return take(kj::mv(connection)); })
      .catch_([this](kj::Exception&& e) -> kj::Promise<void> {
        if (e.getType() == kj::Exception::Type::FAILED) return kj::mv(e);
        const bool silent = e.getType() == kj::Exception::Type::OVERLOADED;
        silent ? addresses_->avoid(addresses_->present()) : addresses_->next();
        return try_again();
      });
}

kj::Promise<void> Runner::take(kj::Own<Connection> connection) {
  if (connection->follower()) {
    const std::string leader = connection->leader();
    leader.empty() ? addresses_->next() : addresses_->follow(leader);
    return try_again();
  }
  handle_ = nullptr;
  connection_ = kj::mv(connection);
  auto request = connection_->pool().reattachRequest();
  request.setId(granted_.id);
  request.setToken(kj::arrayPtr(reinterpret_cast<const kj::byte*>(granted_.token.data()), granted_.token.size()));
  auto answered = request.send().then([this](auto&& answer) { handle_ = answer.getHandle(); });
  return io_.provider->getTimer().timeoutAfter(kSilentMs * kj::MILLISECONDS, kj::mv(answered));
}

// A scheduler that leads no longer may be stopped, or cut off, and its connection stand.
kj::Promise<void> Runner::hear_of_it() {
  if (!sched::Addresses(found_).several()) return kj::NEVER_DONE;
  return io_.provider->getTimer().afterDelay(kAskMs * kj::MILLISECONDS).then([this]() -> kj::Promise<void> {
    auto asked = KJ_ASSERT_NONNULL(handle_).infoRequest().send().ignoreResult();
    auto heard = io_.provider->getTimer().timeoutAfter(kSilentMs * kj::MILLISECONDS, kj::mv(asked));
    return heard.then([this] { return hear_of_it(); },
                      [this](kj::Exception&& e) -> kj::Promise<void> {
                        if (e.getType() != kj::Exception::Type::OVERLOADED) return kj::mv(e);
                        addresses_->avoid(connection_->address());
                        return KJ_EXCEPTION(DISCONNECTED, "the scheduler is silent");
                      });
  });
}

// Where there are several schedulers the next one may have to come first.
void Runner::report(int exit_status) {
  const uint64_t until = now_ns() + kReportNs;
  for (bool told = false, refused = false; !told && !refused;) {
    const auto tell = [&]() -> kj::Promise<void> {
      KJ_IF_MAYBE (handle, handle_) {
        auto request = handle->endedRequest();
        request.setExitStatus(exit_status);
        return request.send().ignoreResult();
      }
      return reattach().catch_([&refused](kj::Exception&&) { refused = true; });  // the pool has ended it meanwhile
    };
    const bool had = handle_ != nullptr;
    kj::Maybe<bool> done;
    const Outcome outcome = await<bool>(io_, tell().then([] { return true; }), &done, 2000);
    told = (outcome.ok() && had) || !sched::Addresses(found_).several() || now_ns() > until;
    if (!outcome.ok()) handle_ = nullptr;
  }
}

}  // namespace tide::cli
