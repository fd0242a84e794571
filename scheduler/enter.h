#pragma once

// The caller's side of the Entrance of scheduler/control.capnp.

#include <capnp/rpc-twoparty.h>

#include <string>

#include "scheduler/control.capnp.h"

namespace tide::sched {

// For the caller: the pool at once; if it is refused, everything that is asked of it fails with the refusal.
inline control::Pool::Client enter(capnp::TwoPartyClient& connection, control::Caller caller,
                                   uint32_t protocol = control::PROTOCOL) {
  auto request = connection.bootstrap().castAs<control::Entrance>().enterRequest();
  request.setProtocol(protocol);
  request.setCaller(caller);
  return request.send().getPool();
}

// What was met there.
struct Entered {
  control::Pool::Client pool;
  bool follower = false;  // the pool refuses all: another scheduler leads,
  std::string leader;     // this one; empty: none at present
};
inline kj::Promise<Entered> enter_or_follow(capnp::TwoPartyClient& connection, control::Caller caller) {
  auto request = connection.bootstrap().castAs<control::Entrance>().enterRequest();
  request.setProtocol(control::PROTOCOL);
  request.setCaller(caller);
  return request.send().then([](auto&& answer) {
    return Entered{.pool = answer.getPool(), .follower = answer.getFollower(), .leader = answer.getLeader()};
  });
}

}  // namespace tide::sched
