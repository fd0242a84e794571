#include "tools/rdma_bench/path.h"

#include <cstring>

#include "tools/tide/options.h"

namespace tide::fabric {
namespace {

constexpr uint64_t kUcxMemlock = 64 << 20;  // it registers 38 MiB for one device's connections, 20 for datagrams

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

// UCX looks for memory that it may lock for most of a minute before it gives up.
std::string obstacle(const PathKind& kind, const Machine& here, const Machine& there) {
  const bool rdma = kind.make == make_ucx && (kind.registers || strcmp(kind.family, "any") == 0);
  for (const Machine* machine : {&here, &there}) {
    if (!rdma || !machine->has_active_rdma() || machine->memlock_exempt) continue;
    if (machine->memlock_bytes >= kUcxMemlock) continue;
    return machine->name + " may lock only " + cli::size_text(machine->memlock_bytes) + " of memory, and UCX needs " +
           cli::size_text(kUcxMemlock) + " for RDMA; ulimit -l unlimited";
  }
  return "";
}

}  // namespace tide::fabric
