#include "transport/rdma.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/log.h"

namespace tide {
namespace {

bool exempt_from_memlock() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_IPC_LOCK & 1) != 0;
}

// (Streams would bring exceptions into the client library.)
uint64_t pinned_bytes() {
  char text[4096] = {};
  const int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  const char* line = n > 0 ? strstr(text, "\nVmPin:") : nullptr;
  return line == nullptr ? 0 : strtoull(line + strlen("\nVmPin:"), nullptr, 10) * 1024;
}

}  // namespace

bool has_rdma_device() {
  DIR* folder = opendir("/sys/class/infiniband");
  if (folder == nullptr) return false;
  bool any = false;
  for (const dirent* entry; (entry = readdir(folder)) != nullptr;) any = any || entry->d_name[0] != '.';
  closedir(folder);
  return any;
}

Memlock Memlock::now() {
  rlimit limit{};
  const bool known = getrlimit(RLIMIT_MEMLOCK, &limit) == 0;
  return {known && limit.rlim_cur != RLIM_INFINITY && !exempt_from_memlock(), limit.rlim_cur, pinned_bytes()};
}

std::string Memlock::too_little_for(const char* what, uint64_t bytes) const {
  const auto kib = [](uint64_t n) { return static_cast<unsigned long long>(n >> 10); };
  return format(
      "%s needs %llu MiB of locked memory and this process may lock %llu KiB, of which it has locked %llu: raise it "
      "(ulimit -l unlimited, or LimitMEMLOCK=infinity of a service)",
      what, static_cast<unsigned long long>((bytes + (1 << 20) - 1) >> 20), kib(limit), kib(used));
}

}  // namespace tide
