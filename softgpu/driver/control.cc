#include "softgpu/driver/control.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <sstream>
#include <thread>

#include "base/log.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/simulation.h"
#include "softgpu/exec/pool.h"

namespace softgpu {
namespace {

constexpr size_t kLineMax = 4096;
constexpr size_t kBlocksShown = 16;

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += tide::format("\\u%04x", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string number(uint64_t value) { return std::to_string(value); }

std::string refused(const std::string& why) { return "{\"ok\":false,\"error\":" + quoted(why) + "}"; }
std::string done() { return "{\"ok\":true}"; }

// "[a,b]"
template <class List, class Show>
std::string array(const List& list, Show show) {
  std::string out = "[";
  for (const auto& item : list) {
    if (out.size() > 1) out += ',';
    out += show(item);
  }
  return out + "]";
}

std::string show_devices() {
  return "{\"ok\":true,\"time\":" + quoted(sim::text_of(simulation().time())) + ",\"devices\":" +
         array(driver().devices,
               [](const std::unique_ptr<Device>& device) {
                 return "{\"index\":" + std::to_string(device->index) + ",\"name\":" + quoted(device->name) +
                        ",\"memory\":" + number(device->memory_bytes) + ",\"used\":" + number(device->used()) +
                        ",\"lost\":" + (simulation().lost(device->index) ? "true" : "false") + "}";
               }) +
         "}";
}

std::string show_triple(const Dim3& d) { return "[" + number(d.x) + "," + number(d.y) + "," + number(d.z) + "]"; }

std::string show_block(const BlockView& block) {
  return "{\"block\":" + show_triple(block.index) + ",\"instructions\":" + number(block.instructions) + ",\"warps\":" +
         array(block.groups,
               [](const GroupView& g) {
                 return "{\"warp\":" + number(g.warp) + ",\"pc\":" + number(g.pc) + ",\"line\":" + number(g.line) +
                        ",\"mask\":" + quoted(tide::format("%08x", g.mask)) + ",\"state\":" + quoted(g.state) +
                        ",\"text\":" + quoted(g.text) + "}";
               }) +
         "}";
}

std::string show_kernels(int device) {
  std::vector<GridView> grids = running_grids(driver().pool(), kBlocksShown);
  std::erase_if(grids, [&](const GridView& g) { return device >= 0 && g.owner != static_cast<uint32_t>(device); });
  return "{\"ok\":true,\"kernels\":" +
         array(grids,
               [](const GridView& g) {
                 return "{\"device\":" + number(g.owner) + ",\"kernel\":" + quoted(g.kernel) +
                        ",\"paused\":" + (g.paused ? "true" : "false") + ",\"blocks\":" + number(g.blocks) +
                        ",\"started\":" + number(g.blocks_started) + ",\"ended\":" + number(g.blocks_ended) +
                        ",\"instructions\":" + number(g.instructions) + ",\"running\":" + array(g.running, show_block) +
                        "}";
               }) +
         "}";
}

std::string show_faults() {
  return "{\"ok\":true,\"faults\":" +
         array(simulation().faults.list(),
               [](const sim::PlannedFault& f) {
                 return "{\"fault\":" + quoted(f.text) + ",\"seen\":" + number(f.seen) + ",\"done\":" + number(f.done) +
                        "}";
               }) +
         "}";
}

std::string inject(const std::string& text) {
  std::vector<sim::PlannedFault> planned;
  std::string error;
  if (!sim::parse_faults(text, &planned, &error)) return refused(error);
  simulation().faults.add(std::move(planned));
  return done();
}

std::string set_time(const std::string& text) {
  sim::TimeSettings settings;
  std::string error;
  if (!sim::parse_time(text, &settings, &error)) return refused(error);
  simulation().set_time(settings);
  return done();
}

// Commands that are about one device.
std::string for_device(const std::string& command, int device) {
  if (command == "pause") {
    pause_grids(driver().pool(), static_cast<uint32_t>(device), true);
  } else if (command == "resume") {
    pause_grids(driver().pool(), static_cast<uint32_t>(device), false);
  } else if (command == "release") {
    release_held_grids(driver().pool(), static_cast<uint32_t>(device));
  } else {
    simulation().repair(device);
  }
  return done();
}

void write_all(int to, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = send(to, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (n <= 0) return;
    at += static_cast<size_t>(n);
  }
}

void serve(int client) {
  const timeval patience = {10, 0};
  setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  std::string text;
  char piece[512];
  for (ssize_t n = read(client, piece, sizeof(piece)); n > 0; n = read(client, piece, sizeof(piece))) {
    text.append(piece, static_cast<size_t>(n));
    for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n')) {
      write_all(client, control_answer(text.substr(0, end)) + "\n");
      text.erase(0, end + 1);
    }
    if (text.size() > kLineMax) break;
  }
  close(client);
}

// A socket that listens at the path, or -1 with *why.
int listen_at(const std::string& path, std::string* why) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return *why = "the path is too long", -1;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const auto* at = reinterpret_cast<const sockaddr*>(&address);
  const int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (made < 0) return *why = std::strerror(errno), -1;
  if (connect(made, at, sizeof(address)) == 0) {
    close(made);
    return *why = "another process listens there", -1;
  }
  struct stat status = {};
  if (lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) unlink(path.c_str());  // of one that is gone
  // The mode is set before anybody can connect.
  if (bind(made, at, sizeof(address)) != 0 || chmod(path.c_str(), 0600) != 0 || listen(made, 8) != 0) {
    *why = std::strerror(errno);
    close(made);
    return -1;
  }
  return made;
}

}  // namespace

std::string control_answer(const std::string& line) {
  std::istringstream words(line);
  std::string command, rest;
  words >> command;
  std::getline(words >> std::ws, rest);
  const bool may_name_device = command == "kernels" || command == "clear";
  const bool must_name_device =
      command == "pause" || command == "resume" || command == "release" || command == "repair";
  int device = -1;
  if (must_name_device || (may_name_device && !rest.empty())) {
    char* end = nullptr;
    const long value = std::strtol(rest.c_str(), &end, 10);
    if (rest.empty() || *end != 0 || find_device(static_cast<CUdevice>(value)) == nullptr) {
      return refused("'" + rest + "' is not the number of a device");
    }
    device = static_cast<int>(value);
  }
  if (must_name_device) return for_device(command, device);
  if (command == "devices") return show_devices();
  if (command == "kernels") return show_kernels(device);
  if (command == "faults") return show_faults();
  if (command == "inject") return inject(rest);
  if (command == "time") return set_time(rest);
  if (command == "clear") {
    simulation().faults.clear(device);
    return done();
  }
  const std::string known = "devices, kernels, faults, inject, clear, repair, pause, resume, release, time, help";
  if (command == "help") return "{\"ok\":true,\"commands\":" + quoted(known) + "}";
  return refused("no command is named '" + command + "': expected one of " + known);
}

void start_control(const std::string& pattern) {
  std::string path = pattern;
  if (const size_t at = path.find("%p"); at != std::string::npos) path.replace(at, 2, std::to_string(getpid()));
  std::string why;
  const int listener = listen_at(path, &why);
  if (listener < 0) {
    tide::log(tide::LogLevel::kWarning, "SOFTGPU_CONTROL=%s: %s; these GPUs cannot be controlled", path.c_str(),
              why.c_str());
    return;
  }
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([listener] {
    for (int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC); client >= 0;
         client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)) {
      serve(client);
    }
  }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace softgpu
