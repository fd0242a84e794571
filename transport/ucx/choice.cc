#include "transport/ucx/choice.h"

#include <cstdlib>
#include <cstring>

#include "base/log.h"
#include "transport/rdma.h"

namespace tide {
namespace {

// UCX registers 38 MiB for the receives of one device, for each worker, and buffers as it goes.
constexpr uint64_t kRdmaMemlock = 64u << 20;
constexpr uint64_t kRdmaMemlockMore = 40u << 20;

bool asks_for_rdma(const std::string& transports) {
  if (transports.front() == '^') return false;
  for (const char* name : {"rc", "ud", "dc", "ib", "all"}) {
    for (size_t at = 0; (at = transports.find(name, at)) != std::string::npos; ++at) {
      if (at == 0 || transports[at - 1] == ',') return true;
    }
  }
  return false;
}

}  // namespace

Outcome choose_transports(std::string* transports) {
  const char* wish = getenv("TIDE_UCX_TLS");
  if (wish == nullptr || wish[0] == '\0') wish = getenv("UCX_TLS");
  // Its shared memory between processes is a file in /dev/shm that nobody removes when its owner is killed; on one host
  // the `shm` transport is faster anyway. Its datagrams (ud) do what its reliable connections do, with more memory, and
  // not on software RDMA; without any device UCX would warn that there are none.
  const char* const ours = has_rdma_device() ? "^posix,sysv,ud" : "^posix,sysv";
  *transports = wish != nullptr && wish[0] != '\0' ? wish : ours;
  const Memlock memlock = has_rdma_device() ? Memlock::now() : Memlock{};
  if (memlock.has_room(kRdmaMemlock)) return {};
  // Where the registration of memory fails in the middle of connecting, UCX aborts the process.
  const std::string why = memlock.too_little_for("RDMA", kRdmaMemlock);
  if (asks_for_rdma(*transports)) return Outcome::fail(why + ", or do not ask for RDMA in UCX_TLS");
  if (transports->front() != '^') return {};
  log(LogLevel::kWarning, "ucx: uses TCP instead of RDMA: %s", why.c_str());
  *transports += ",ib";
  return {};
}

Outcome room_for_another(const std::string& transports) {
  const bool takes_rdma =
      transports.front() == '^' ? transports.find(",ib") == std::string::npos : asks_for_rdma(transports);
  if (!takes_rdma || !has_rdma_device()) return {};
  const Memlock memlock = Memlock::now();
  if (memlock.has_room(kRdmaMemlockMore)) return {};
  return Outcome::fail("UCX: " + memlock.too_little_for("one more connection over RDMA", kRdmaMemlockMore));
}

// A line for each transport and device: "#   resource 1  :  md 1  dev 1  flags -- tcp/lo".
Outcome reaches_others(const std::string& transports, const std::string& description) {
  bool any = false;
  for (size_t at = 0; (at = description.find(" -- ", at)) != std::string::npos;) {
    at += strlen(" -- ");
    const std::string name = description.substr(at, description.find('\n', at) - at);
    bool stays = name.find("/memory") != std::string::npos;
    for (const char* of_gpus : {"cuda", "gdr_copy", "rocm", "ze_"}) stays |= name.rfind(of_gpus, 0) == 0;
    if (!stays) return {};
    any = true;
  }
  return any ? no_device_for(transports) : Outcome{};  // else this UCX describes itself in other words
}

Outcome no_device_for(const std::string& transports) {
  const char* rdma = asks_for_rdma(transports) && !has_rdma_device() ? ", no RDMA at all" : "";
  const char* const devices = getenv("UCX_NET_DEVICES");
  const std::string among = devices == nullptr ? "" : std::string(" among UCX_NET_DEVICES '") + devices + "'";
  return Outcome::fail(
      format("UCX: this machine has no device for its transports '%s'%s%s: `rdma-bench devices` shows what there is; "
             "without UCX_TLS, TIDE_UCX_TLS and UCX_NET_DEVICES it takes what it finds",
             transports.c_str(), among.c_str(), rdma));
}

}  // namespace tide
