#include "server/agent_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

#include "base/clock.h"
#include "base/descriptors.h"
#include "base/log.h"
#include "transport/door.h"

namespace tide {
namespace {

constexpr uint32_t kMagic = 0x61746174;  // "tata"
constexpr uint32_t kVersion = 4;
constexpr size_t kBytesMax = 64u << 20;
constexpr uint64_t kReadNs = 5'000'000'000;
constexpr uint64_t kClaimNs = 2'000'000'000;

struct FileHeader {
  uint32_t magic = kMagic;
  uint32_t version = kVersion;
  uint32_t leases = 0;
  uint32_t fences = 0;
  char boot[64] = {};
  char door[64] = {};
};

struct FileLease {
  char job[kIdBytes] = {};
  uint8_t token[kTokenBytes] = {};
  uint64_t epoch = 0;
  uint64_t memory_bytes = 0;
  uint32_t vgpu = 0;
  uint32_t gpu = 0;
  uint32_t committed = 0;
  uint32_t sessions = 0;
  uint32_t part = 0;
  uint32_t weight = 0;
  uint32_t is_latency = 0;
  uint32_t is_protected = 0;
  uint8_t gpu_uuid[16] = {};
};

struct FileSession {
  uint8_t id[16] = {};
  uint32_t client_pid = 0;
};

struct FileFence {
  char job[kIdBytes] = {};
  uint8_t token[kTokenBytes] = {};
  uint64_t epoch = 0;
  uint32_t vgpu = 0;
  uint32_t reserved = 0;
};

template <class T>
void put(std::string* text, const T& value) {
  text->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <class T>
bool take(std::string_view* text, T* value) {
  if (text->size() < sizeof(*value)) return false;
  memcpy(value, text->data(), sizeof(*value));
  text->remove_prefix(sizeof(*value));
  return true;
}

bool take_lease(std::string_view* text, AgentState::Lease* lease) {
  FileLease from;
  if (!take(text, &from) || !is_text(from.job)) return false;
  lease->terms = {.job = from.job,
                  .vgpu = from.vgpu,
                  .gpu = from.gpu,
                  .epoch = from.epoch,
                  .token = {},
                  .memory_bytes = from.memory_bytes,
                  .part = from.part,
                  .weight = from.weight,
                  .is_latency = from.is_latency != 0,
                  .gpu_uuid = {},
                  .is_protected = from.is_protected != 0};
  memcpy(lease->terms.token, from.token, sizeof(from.token));
  memcpy(lease->terms.gpu_uuid, from.gpu_uuid, sizeof(from.gpu_uuid));
  lease->committed = from.committed != 0;
  for (uint32_t i = 0; i < from.sessions; ++i) {
    FileSession session;
    if (!take(text, &session)) return false;
    lease->sessions.emplace_back();
    memcpy(lease->sessions.back().id, session.id, sizeof(session.id));
    lease->sessions.back().client_pid = session.client_pid;
  }
  return true;
}

bool take_all(std::string_view text, AgentState* state) {
  FileHeader header;
  const bool sound = take(&text, &header) && header.magic == kMagic && header.version == kVersion &&
                     is_text(header.boot) && is_text(header.door) && header.boot == this_host_id();
  if (!sound) return false;
  state->door = header.door;
  for (uint32_t i = 0; i < header.leases; ++i) {
    state->leases.emplace_back();
    if (!take_lease(&text, &state->leases.back())) return false;
  }
  for (uint32_t i = 0; i < header.fences; ++i) {
    FileFence fence;
    if (!take(&text, &fence) || !is_text(fence.job)) return false;
    state->fences.push_back({.job = fence.job, .vgpu = fence.vgpu, .epoch = fence.epoch, .token = {}});
    memcpy(state->fences.back().token, fence.token, sizeof(fence.token));
  }
  return text.empty();
}

std::string bytes_of(const AgentState& state) {
  std::string text;
  FileHeader header;
  header.leases = uint32_t(state.leases.size());
  header.fences = uint32_t(state.fences.size());
  set_text(header.boot, this_host_id());
  set_text(header.door, state.door);
  put(&text, header);
  for (const AgentState::Lease& lease : state.leases) {
    FileLease to;
    set_text(to.job, lease.terms.job);
    memcpy(to.token, lease.terms.token, sizeof(to.token));
    to.epoch = lease.terms.epoch, to.memory_bytes = lease.terms.memory_bytes;
    to.vgpu = lease.terms.vgpu, to.gpu = lease.terms.gpu, to.part = lease.terms.part;
    to.weight = lease.terms.weight, to.is_latency = lease.terms.is_latency ? 1 : 0;
    memcpy(to.gpu_uuid, lease.terms.gpu_uuid, sizeof(to.gpu_uuid));
    to.committed = lease.committed ? 1 : 0;
    to.is_protected = lease.terms.is_protected ? 1 : 0;
    to.sessions = uint32_t(lease.sessions.size());
    put(&text, to);
    for (const AgentState::Session& session : lease.sessions) {
      FileSession one;
      memcpy(one.id, session.id, sizeof(one.id));
      one.client_pid = session.client_pid;
      put(&text, one);
    }
  }
  for (const Fence& fence : state.fences) {
    FileFence to;
    set_text(to.job, fence.job);
    memcpy(to.token, fence.token, sizeof(to.token));
    to.epoch = fence.epoch, to.vgpu = fence.vgpu;
    put(&text, to);
  }
  return text;
}

}  // namespace

Outcome claim_directory(const std::string& directory) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return errno_failure("cannot make " + directory);
  }
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat owner = {};
  if (fd < 0 || fstat(fd, &owner) != 0) return errno_failure("cannot open " + directory);
  if (owner.st_uid != geteuid()) return Outcome::fail(directory + " belongs to another user; choose another --dir");
  const uint64_t end = now_ns() + kClaimNs;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (now_ns() > end) return Outcome::fail("another agent uses " + directory + "; choose another --dir");
    sleep_us(20'000);
  }
  return {};
}

AgentState read_agent_state(const std::string& path) {
  AgentState state;
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return {};
  const Outcome read = read_to_end(fd, {kBytesMax, kReadNs}, &text);
  close(fd);
  if (read.ok() && take_all(text, &state)) return state;
  FileHeader header;
  std::string_view rest = text;
  if (take(&rest, &header) && header.magic == kMagic && header.version != kVersion) {
    log(LogLevel::kWarning, "%s is of another release (version %u, this one's is %u): no job of before is taken over",
        path.c_str(), header.version, kVersion);
  }
  return {};
}

Outcome write_agent_state(const std::string& path, const AgentState& state) {
  const std::string part = path + ".part", text = bytes_of(state);
  const int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return errno_failure("cannot write " + part);
  Outcome written = write_all(fd, text.data(), text.size());
  close(fd);
  if (written.ok() && rename(part.c_str(), path.c_str()) != 0) written = Outcome::fail(strerror(errno));
  if (written.ok()) return {};
  unlink(part.c_str());
  return Outcome::fail("cannot write " + path + ": " + written.message());
}

}  // namespace tide
