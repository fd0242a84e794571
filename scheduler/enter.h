#pragma once

// The caller's side of the Entrance of scheduler/control.capnp.

#include <capnp/rpc-twoparty.h>

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

}  // namespace tide::sched
