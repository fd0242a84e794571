#include "transport/ucx/choice.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/log.h"
#include "transport/rdma.h"

namespace tide {
namespace {

constexpr uint64_t kRdmaMemlock = 64u << 20;  // UCX registers 38 MiB for the receives of one device

bool exempt_from_memlock() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_IPC_LOCK & 1) != 0;
}

// Bytes that this process may lock, where that is too little for RDMA; else 0.
uint64_t too_little_memlock() {
  rlimit limit{};
  if (!has_rdma_device() || getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 0;
  return limit.rlim_cur >= kRdmaMemlock || exempt_from_memlock() ? 0 : std::max<uint64_t>(limit.rlim_cur, 1);
}

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
  const uint64_t memlock = too_little_memlock();
  if (memlock == 0) return {};
  // Where the registration of memory fails in the middle of connecting, UCX aborts the process.
  const std::string why = format(
      "this process may lock only %llu KiB of memory and RDMA needs %llu MiB: raise it (ulimit -l unlimited, or "
      "LimitMEMLOCK=infinity of a service)",
      (unsigned long long)memlock / 1024, (unsigned long long)kRdmaMemlock >> 20);
  if (asks_for_rdma(*transports)) return Outcome::fail(why + ", or do not ask for RDMA in UCX_TLS");
  if (transports->front() != '^') return {};
  log(LogLevel::kWarning, "ucx: uses TCP instead of RDMA: %s", why.c_str());
  *transports += ",ib";
  return {};
}

Outcome no_device_for(const std::string& transports) {
  const char* rdma = asks_for_rdma(transports) && !has_rdma_device() ? ", no RDMA at all" : "";
  return Outcome::fail(
      format("UCX: this machine has no device for its transports '%s'%s: `rdma-bench devices` shows what there is; "
             "without UCX_TLS, TIDE_UCX_TLS and UCX_NET_DEVICES it takes what it finds",
             transports.c_str(), rdma));
}

}  // namespace tide
