#include "tools/rdma_bench/path.h"

#include <cstring>

namespace tide::fabric {
namespace {

bool has_transport(const Machine& machine, const std::string& name) {
  for (const UcxTransport& each : machine.ucx_transports) {
    if (each.name == name) return true;
  }
  return false;
}

}  // namespace

Outcome Channel::set_bytes(uint64_t bytes) {
  bytes_ = bytes;
  posted_ = sent_ = received_ = 0;
  return resize(bytes);
}

const PathKind* path_named(const std::string& name) {
  for (const PathKind& kind : kPaths) {
    if (name == kind.name) return &kind;
  }
  return nullptr;
}

bool path_exists(const PathKind& kind, const Machine& here, const Machine& there, std::string* why_not) {
  if (strcmp(kind.family, "memory") == 0 && here.boot_id != there.boot_id) {
    *why_not = "two machines share no memory";
    return false;
  }
  for (const Machine* machine : {&here, &there}) {
    if (kind.make != make_verbs || machine->has_active_rdma()) continue;
    *why_not = machine->name + " has no active RDMA port";
    return false;
  }
  if (kind.needs == nullptr || kind.needs[0] == '\0') return true;
  for (const Machine* machine : {&here, &there}) {
    if (has_transport(*machine, kind.needs)) continue;
    *why_not = "UCX of " + machine->name + " has no transport " + kind.needs;
    return false;
  }
  return true;
}

}  // namespace tide::fabric
