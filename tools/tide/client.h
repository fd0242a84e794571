#pragma once

// A connection to a pool's scheduler, for commands that ask and wait.

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include <memory>
#include <string>

#include "base/outcome.h"
#include "scheduler/addresses.h"
#include "scheduler/control.capnp.h"
#include "scheduler/enter.h"
#include "scheduler/remote_error.h"
#include "tools/tide/options.h"

namespace tide::cli {

inline constexpr uint32_t kEnterMs = 2'000;
inline constexpr uint32_t kLeaderMs = 15'000;  // what the schedulers may take to find a leader
inline constexpr uint32_t kAnswerMs = 20'000;  // what a question may take; moves have no limit

// One connection; falls with it. Needs a kj event loop.
class Connection {
 public:
  // `addresses`: of several schedulers, with commas between; the one that leads is found.
  static Outcome open(kj::AsyncIoContext& io, const std::string& addresses, kj::Own<Connection>* connection,
                      uint32_t limit_ms = kLeaderMs);
  // To the present one of `addresses`, which may not be the leader. For what it says then it has `enter_ms`; one that
  // is silent is an error if there are others, else the pool says itself what is wrong.
  static kj::Promise<kj::Own<Connection>> connect(kj::AsyncIoContext& io, const sched::Addresses& addresses,
                                                  uint32_t connect_ms, uint32_t enter_ms = kEnterMs);
  bool follower() const { return follower_; }
  const std::string& leader() const { return leader_; }  // as a follower says; empty: none at present
  const std::string& address() const { return address_; }
  control::Pool::Client& pool() { return pool_; }
  kj::Promise<void> gone() { return client_.onDisconnect(); }

  // The pool at once; who wants to know whether it leads asks connect().
  Connection(kj::Own<kj::AsyncIoStream> stream)
      : stream_(kj::mv(stream)), client_(*stream_), pool_(sched::enter(client_, control::Caller::TIDE)) {}

 private:
  kj::Own<kj::AsyncIoStream> stream_;
  capnp::TwoPartyClient client_;
  control::Pool::Client pool_;
  bool follower_ = false;
  std::string leader_, address_;
};

// Waits for an answer; `limit_ms` 0: as long as it takes.
template <typename T>
Outcome await(kj::AsyncIoContext& io, kj::Promise<T> promise, kj::Maybe<T>* answer, uint32_t limit_ms = kAnswerMs) {
  auto limited = limit_ms == 0 ? kj::mv(promise)
                               : io.provider->getTimer().timeoutAfter(limit_ms * kj::MILLISECONDS, kj::mv(promise));
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { *answer = limited.wait(io.waitScope); })) {
    return Outcome::fail(exception->getType() == kj::Exception::Type::OVERLOADED
                             ? "the scheduler said nothing for " + std::to_string(limit_ms / 1000) +
                                   " s; is it stopped, or is another program on its port?"
                         : exception->getType() == kj::Exception::Type::DISCONNECTED
                             ? "the connection broke: the scheduler ended, or what answers there is none; "
                               "`tide up` starts a new pool, `tide down` cleans up first"
                             : remote_error(*exception));
  }
  return {};
}

// What most subcommands need: an event loop and the pool that the options name.
class Asker {
 public:
  Asker() : io_(kj::setupAsyncIo()) {}
  Outcome connect(const Options& options, uint32_t limit_ms = kLeaderMs);
  control::Pool::Client& pool() { return connection_->pool(); }
  kj::AsyncIoContext& io() { return io_; }

  template <typename T>
  Outcome ask(capnp::RemotePromise<T> promise, kj::Maybe<capnp::Response<T>>* answer, uint32_t limit_ms = kAnswerMs) {
    return await<capnp::Response<T>>(io_, promise.then([](capnp::Response<T>&& r) { return kj::mv(r); }), answer,
                                     limit_ms);
  }

 private:
  kj::AsyncIoContext io_;
  kj::Own<Connection> connection_;
};

}  // namespace tide::cli
