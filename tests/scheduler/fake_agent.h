#pragma once

// An agent without workers: says yes (or fails as told) and writes down what it was asked.

#include <kj/async-io.h>

#include <map>
#include <string>
#include <vector>

#include "scheduler/control.capnp.h"

namespace tide {

struct FakeAgentLog {
  std::vector<std::string> calls;                                   // "place 1:0 on node0/2 epoch 1"
  std::map<std::string, std::string> fail;                          // method -> message: the next calls of it fail
  std::map<std::pair<std::string, uint32_t>, uint64_t> leases;      // (job, vgpu) -> epoch of what is served here
  std::map<std::pair<std::string, uint32_t>, std::string> shares;   // part x weight; and "first": of the latency class
  std::map<std::pair<std::string, uint32_t>, uint32_t> gpus;        // where
  std::map<std::pair<std::string, uint32_t>, std::string> servers;  // of which agent
  std::map<std::pair<std::string, uint32_t>, bool> held;
  std::map<std::string, uint32_t> room;            // server -> how many vGPUs it can keep; else any number
  std::map<std::string, std::string> unreachable;  // server -> why a move to it fails
  bool restless = false;                           // what is held goes on executing commands
  bool at_rest = false;                            // nobody has anything to do
  bool waits = false;                              // programs of parked vGPUs have commands for them
  bool old = false;                                // knows no hold()
  uint64_t commands = 0;
  double used_ms = 0;                         // that usage() says of each vGPU on a GPU
  std::map<std::string, std::string> guards;  // "1:0" -> server that guards it
  std::map<std::string, uint64_t> guard_epochs;
  std::string refused;       // why checkpoints are refused
  bool worker_lost = false;  // what watch() says next, once
  uint32_t moves_at_once = 0, moves_at_once_max = 0;
  uint32_t move_ms = 1;
};

control::Agent::Client make_fake_agent(std::string server, FakeAgentLog& log, kj::Timer& timer);

void fill_server_info(control::ServerInfo::Builder info, const std::string& name, uint32_t gpus, uint64_t memory_bytes);

}  // namespace tide
