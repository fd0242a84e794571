#include "interpose/pool.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/log.h"

namespace tide {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool parse_token(const char* text, uint8_t token[kTokenBytes]) {
  if (strlen(text) != 2 * kTokenBytes) return false;
  for (uint32_t i = 0; i < kTokenBytes; ++i) {
    const int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    token[i] = uint8_t(high << 4 | low);
  }
  return true;
}

Outcome refusal(const std::string& payload) {
  DoorRefused refused;
  if (payload.size() < sizeof refused) return Outcome::fail("the scheduler refused without a reason");
  memcpy(&refused, payload.data(), sizeof refused);
  refused.message[sizeof refused.message - 1] = 0;
  return Outcome::fail(refused.message);
}

Outcome parse_job(const std::string& payload, std::vector<VgpuPlace>* places) {
  DoorJob job;
  if (payload.size() < sizeof job) return Outcome::fail("the scheduler's answer is too short");
  memcpy(&job, payload.data(), sizeof job);
  if (job.vgpu_count == 0 || job.vgpu_count > kVgpusMax) {
    return Outcome::fail(format("the scheduler's answer names %u vGPUs", job.vgpu_count));
  }
  size_t at = sizeof job;
  places->clear();
  for (uint32_t i = 0; i < job.vgpu_count; ++i) {
    DoorVgpu vgpu;
    if (payload.size() - at < sizeof vgpu) return Outcome::fail("the scheduler's answer is cut short");
    memcpy(&vgpu, payload.data() + at, sizeof vgpu);
    at += sizeof vgpu;
    VgpuPlace place;
    if (vgpu.device_info_bytes != sizeof place.info || payload.size() - at < vgpu.device_info_bytes) {
      return Outcome::fail("the GPU server's description has another version; use the same release on all machines");
    }
    memcpy(&place.info, payload.data() + at, sizeof place.info);
    at += vgpu.device_info_bytes;
    if (place.info.version != kDeviceInfoVersion) {
      return Outcome::fail("the GPU server's description has another version; use the same release on all machines");
    }
    place.info.name[sizeof place.info.name - 1] = 0;
    vgpu.endpoint[sizeof vgpu.endpoint - 1] = 0;
    place.epoch = vgpu.epoch;
    place.memory_bytes = vgpu.memory_bytes;
    place.endpoint = vgpu.endpoint;
    places->push_back(std::move(place));
  }
  return {};
}

template <class T>
const char* take(const char* from, uint32_t count, std::vector<T>* to) {
  to->resize(count);
  if (count != 0) memcpy(to->data(), from, count * sizeof(T));
  return from + count * sizeof(T);
}

Outcome parse_usage(const std::string& payload, PoolUsage* usage) {
  DoorUsage counts;
  const Outcome malformed = Outcome::fail("the scheduler's answer about usage is malformed");
  if (payload.size() < sizeof counts) return malformed;
  memcpy(&counts, payload.data(), sizeof counts);
  const uint64_t bytes = sizeof counts + uint64_t(counts.vgpu_count) * sizeof(DoorVgpuUsage) +
                         uint64_t(counts.client_count) * sizeof(DoorClientUsage);
  if (payload.size() != bytes) return malformed;
  take(take(payload.data() + sizeof counts, counts.vgpu_count, &usage->vgpus), counts.client_count, &usage->clients);
  return {};
}

}  // namespace

Outcome job_from_environment(JobIdentity* identity) {
  const char* door = getenv("TIDE_DOOR");
  const char* job = getenv("TIDE_JOB");
  const char* token = getenv("TIDE_TOKEN");
  if (job == nullptr || door == nullptr || token == nullptr || *job == 0 || *door == 0) {
    return Outcome::fail("no GPU: this process is not part of a job; start it with `tide run -g N -- COMMAND`");
  }
  if (strlen(job) >= sizeof identity->job)
    return Outcome::fail("TIDE_JOB is too long; start the program with `tide run`");
  if (!parse_token(token, identity->token)) {
    return Outcome::fail("TIDE_TOKEN is malformed; start the program with `tide run`");
  }
  identity->door = door;
  memset(identity->job, 0, sizeof identity->job);
  memcpy(identity->job, job, strlen(job));
  return {};
}

Outcome Pool::dial() {
  const std::string& door = identity_.door;
  const std::string prefix = "unix:";
  if (door[0] == '/') return connect_unix(door, patience_ms_, &socket_);
  if (door.compare(0, prefix.size(), prefix) == 0)
    return connect_unix(door.substr(prefix.size()), patience_ms_, &socket_);
  return connect_tcp(door, patience_ms_, &socket_);
}

Outcome Pool::say_hello(const JobIdentity& identity, std::vector<VgpuPlace>* places) {
  const std::lock_guard lock(mu_);
  identity_ = identity;
  if (Outcome o = dial(); !o.ok()) {
    socket_ = -1;
    return Outcome::fail("cannot reach the pool: " + o.message() + "; is it running? see `tide status`");
  }
  DoorHello hello;
  memcpy(hello.job, identity.job, sizeof hello.job);
  memcpy(hello.token, identity.token, sizeof hello.token);
  hello.pid = uint32_t(getpid());
  DoorType type{};
  std::string payload;
  Outcome o = send_frame(socket_, DoorType::kHello, &hello, sizeof hello);
  if (o.ok()) o = receive_frame(socket_, patience_ms_, &type, &payload);
  if (o.ok() && type == DoorType::kRefused)
    o = refusal(payload);
  else if (o.ok() && type != DoorType::kJob)
    o = Outcome::fail("the scheduler gave an answer that does not fit");
  else if (o.ok())
    o = parse_job(payload, places);
  if (!o.ok()) {
    close(socket_);
    socket_ = -1;
  }
  return o;
}

Outcome Pool::where(uint32_t vgpu, uint64_t* epoch, std::string* endpoint) {
  std::vector<VgpuPlace> places;
  std::unique_lock lock(mu_);
  if (socket_ >= 0) {
    DoorWhere where{.vgpu = vgpu};
    DoorType type{};
    std::string payload;
    Outcome o = send_frame(socket_, DoorType::kWhere, &where, sizeof where);
    if (o.ok()) o = receive_frame(socket_, patience_ms_, &type, &payload);
    if (o.ok() && type == DoorType::kRefused) return refusal(payload);
    DoorPlace place;
    if (o.ok() && type == DoorType::kPlace && payload.size() >= sizeof place) {
      memcpy(&place, payload.data(), sizeof place);
      place.endpoint[sizeof place.endpoint - 1] = 0;
      if (place.vgpu != vgpu) return Outcome::fail("the scheduler answered for another vGPU");
      *epoch = place.epoch;
      *endpoint = place.endpoint;
      return {};
    }
    close(socket_);  // the scheduler may have been restarted: once more from the beginning
    socket_ = -1;
  }
  lock.unlock();
  if (Outcome o = say_hello(JobIdentity(identity_), &places); !o.ok()) return o;
  if (vgpu >= places.size()) return Outcome::fail("the scheduler does not know this vGPU any more");
  *epoch = places[vgpu].epoch;
  *endpoint = places[vgpu].endpoint;
  return {};
}

Outcome Pool::measure(PoolUsage* usage) {
  Outcome outcome;
  if (ask_usage(&outcome, usage)) return outcome;
  std::vector<VgpuPlace> places;  // the scheduler may have been restarted: once more from the beginning
  if (Outcome o = say_hello(JobIdentity(identity_), &places); !o.ok()) return o;
  return ask_usage(&outcome, usage) ? outcome : Outcome::fail("the scheduler does not say what the vGPUs do");
}

bool Pool::ask_usage(Outcome* outcome, PoolUsage* usage) {
  const std::lock_guard lock(mu_);
  if (socket_ < 0) return false;
  DoorType type{};
  std::string payload;
  Outcome o = send_frame(socket_, DoorType::kMeasure, nullptr, 0);
  if (o.ok()) o = receive_frame(socket_, patience_ms_, &type, &payload);
  if (o.ok() && (type == DoorType::kUsage || type == DoorType::kRefused)) {
    *outcome = type == DoorType::kRefused ? refusal(payload) : parse_usage(payload, usage);
    return true;
  }
  close(socket_);
  socket_ = -1;
  return false;
}

void Pool::abandon() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

}  // namespace tide
