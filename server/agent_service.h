#pragma once

// The scheduler's side of an agent: implements control.capnp's Agent, and keeps the registration alive.

#include <kj/async-io.h>

#include <string>

#include "server/agent.h"

namespace tide {

control::Agent::Client make_agent_service(Agent& agent, std::string endpoint);

struct RegistrationOptions {
  std::string scheduler;  // address
  std::string name;
  std::string endpoint;    // of the door
  std::string ready_file;  // written after the first success; may be empty
};

// Registers, sends heartbeats, and begins anew when the scheduler goes away. Never ends.
kj::Promise<void> keep_registered(Agent& agent, RegistrationOptions options);

}  // namespace tide
