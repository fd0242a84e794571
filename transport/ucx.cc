#include "transport/ucx.h"

#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/threads.h"
#include "transport/door.h"
#include "transport/rdma.h"
#include "transport/stream.h"
#include "transport/ucx/plugin.h"

namespace tide {
namespace {

// UCX reads these once, while it is being loaded: afterwards libc's mmap is rewritten and signals are taken.
constexpr const char* kQuietly[][2] = {
    {"UCX_MEM_MMAP_HOOK_MODE", "none"},
    {"UCX_MEM_CUDA_HOOK_MODE", "none"},
    {"UCX_MEM_EVENTS", "n"},
    {"UCX_MEM_MALLOC_HOOKS", "n"},
    {"UCX_MEM_MALLOC_RELOC", "n"},
    {"UCX_ERROR_SIGNALS", ""},
    {"UCX_HANDLE_ERRORS", "none"},
    {"UCX_DEBUG_SIGNO", "0"},
    {"UCX_LOG_LEVEL", "fatal"},
    {"UCX_VFS_ENABLE", "n"},
};

constexpr uint32_t kProbeMs = 1'000;

// Where there is no RDMA device UCX's parts for them, and their libraries, take a quarter of its start.
constexpr const char* kOfDevices = "^ib,rdmacm";

// For the time of the loading only: a child of the program shall find its environment as it was.
class QuietEnvironment {
 public:
  QuietEnvironment() {
    for (const auto& [name, value] : kQuietly) add(name, value);
    if (!has_rdma_device()) add("UCX_MODULES", kOfDevices);
  }
  ~QuietEnvironment() {
    for (const char* name : added_) unsetenv(name);
  }

 private:
  void add(const char* name, const char* value) {
    if (getenv(name) != nullptr) return;
    setenv(name, value, 0);
    added_.push_back(name);
  }
  std::vector<const char*> added_;
};

// Beside the library or program that this code is linked into, or where build and installation have it.
std::vector<std::string> plugin_places() {
  std::vector<std::string> places;
  const char* named = getenv("TIDE_UCX_PLUGIN");
  if (named != nullptr && named[0] != '\0') places.push_back(named);
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&plugin_places), &info) == 0 || info.dli_fname == nullptr) return places;
  char path[4096];
  // Of a program, dli_fname is only what it was called.
  const bool is_path = strchr(info.dli_fname, '/') != nullptr;
  if (realpath(is_path ? info.dli_fname : "/proc/self/exe", path) == nullptr) return places;
  std::string folder = path;
  folder.resize(folder.rfind('/'));
  for (const char* place : {"", "/../lib", "/../transport", "/../../transport"}) {
    const std::string file = folder + place + "/libtideucx.so";
    if (access(file.c_str(), R_OK) == 0) places.push_back(file);
  }
  return places;
}

Outcome load(const UcxPlugin** plugin) {
  const QuietEnvironment quiet;
  const SignalsBlocked blocked;  // threads that UCX starts inherit this
  std::string tried;
  for (const std::string& place : plugin_places()) {
    // Never unloaded: UCX leaves a thread behind.
    void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == nullptr) {
      tried += std::string("; ") + dlerror();
      continue;
    }
    const auto function = reinterpret_cast<UcxPluginFunction>(dlsym(library, kUcxPluginSymbol));
    const UcxPlugin* found = function == nullptr ? nullptr : function();
    if (found == nullptr || found->version != kUcxPluginVersion) {
      return Outcome::fail(place + " is of another version of Tidepool");
    }
    *plugin = found;
    return {};
  }
  return Outcome::fail("cannot load libtideucx.so; is it beside this library, and UCX (libucp.so.0) installed?" +
                       tried);
}

Outcome plugin(const UcxPlugin** plugin) {
  static std::mutex* mu = new std::mutex;
  static const UcxPlugin* loaded = nullptr;
  const std::lock_guard lock(*mu);
  if (loaded == nullptr) {
    const Outcome outcome = load(&loaded);
    if (!outcome.ok()) return outcome;
  }
  *plugin = loaded;
  return {};
}

// Where the client came to: it gets there once more. Nothing where it came over no network, or TIDE_UCX_BIND says
// where.
std::string own_address(int lifeline) {
  const char* bind = getenv("TIDE_UCX_BIND");
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  char host[INET6_ADDRSTRLEN] = {};
  if ((bind != nullptr && bind[0] != '\0') || getsockname(lifeline, reinterpret_cast<sockaddr*>(&address), &bytes) != 0)
    return {};
  const bool named =
      (address.ss_family == AF_INET || address.ss_family == AF_INET6) &&
      getnameinfo(reinterpret_cast<sockaddr*>(&address), bytes, host, sizeof host, nullptr, 0, NI_NUMERICHOST) == 0;
  if (!named) return {};
  return address.ss_family == AF_INET6 ? "[" + std::string(host) + "]" : host;
}

// UCX says the same of a machine that cannot be reached.
bool is_refused(const std::string& address) {
  int socket = -1;
  bool refused = false;
  if (connect_tcp(address, kProbeMs, &socket, &refused).ok()) close(socket);
  return refused;
}

}  // namespace

void ucx_settle_environment() {
  for (const auto& [name, value] : kQuietly) setenv(name, value, 0);
}

Outcome ucx_connect(Region, int, const std::string& data, std::unique_ptr<Carrier>* carrier) {
  const UcxPlugin* ucx = nullptr;
  const Outcome outcome = plugin(&ucx);
  if (!outcome.ok()) return outcome;
  const SignalsBlocked blocked;
  return ucx->connect(data, carrier);
}

Outcome ucx_listen(Region, int lifeline, std::string* data, std::unique_ptr<Carrier>* carrier) {
  const UcxPlugin* ucx = nullptr;
  const Outcome outcome = plugin(&ucx);
  if (!outcome.ok()) return outcome;
  *data = own_address(lifeline);
  return ucx->listen(data, carrier);
}

void ucx_prepare() {
  const UcxPlugin* ucx = nullptr;
  if (!plugin(&ucx).ok()) return;
  const SignalsBlocked blocked;
  ucx->prepare();
}

Outcome listen_stream(std::string* address, std::unique_ptr<StreamListener>* listener) {
  const UcxPlugin* ucx = nullptr;
  const Outcome outcome = plugin(&ucx);
  return outcome.ok() ? ucx->listen_stream(address, listener) : outcome;
}

Outcome connect_stream(const std::string& address, uint32_t timeout_ms, std::unique_ptr<ByteStream>* stream,
                       bool* refused) {
  const UcxPlugin* ucx = nullptr;
  Outcome outcome = plugin(&ucx);
  if (!outcome.ok()) return outcome;
  bool perhaps = false;
  outcome = ucx->connect_stream(address, timeout_ms, stream, &perhaps);
  if (perhaps && refused != nullptr) *refused = is_refused(address);
  return outcome;
}

}  // namespace tide
