#include "interpose/pool.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "interpose/door_answers.h"

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

constexpr uint32_t kElectionPauseUs = 100'000;

std::vector<std::string> doors_of(const std::string& text) {
  if (text[0] == '/' || text.compare(0, 5, "unix:") == 0) return {text};
  std::vector<std::string> doors;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    doors.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return doors;
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

Outcome Pool::dial(const std::string& door) {
  const std::string prefix = "unix:";
  if (door[0] == '/') return connect_unix(door, patience_ms_, &socket_);
  if (door.compare(0, prefix.size(), prefix) == 0)
    return connect_unix(door.substr(prefix.size()), patience_ms_, &socket_);
  return connect_tcp(door, patience_ms_, &socket_);
}

Outcome Pool::greet(const std::string& door, std::vector<VgpuPlace>* places, bool* elsewhere, bool* refused) {
  *refused = false;
  if (Outcome o = dial(door); !o.ok()) {
    socket_ = -1;
    *elsewhere = true;
    return Outcome::fail("cannot reach the pool: " + o.message() + "; is it running? see `tide status`");
  }
  DoorHello hello;
  memcpy(hello.job, identity_.job, sizeof hello.job);
  memcpy(hello.token, identity_.token, sizeof hello.token);
  hello.pid = uint32_t(getpid());
  DoorType type{};
  std::string payload;
  Outcome o = send_frame(socket_, DoorType::kHello, &hello, sizeof hello);
  if (o.ok()) o = receive_frame(socket_, patience_ms_, &type, &payload);
  *elsewhere = !o.ok();
  if (o.ok() && type == DoorType::kRefused) {
    int32_t code = 0;
    o = parse_refusal(payload, &code);
    *elsewhere = code == kNotLeaderRefusal;
    *refused = !*elsewhere;
  } else if (o.ok() && type != DoorType::kJob) {
    o = Outcome::fail("the scheduler gave an answer that does not fit");
  } else if (o.ok()) {
    o = parse_job(payload, places);
  }
  if (!o.ok()) {
    close(socket_);
    socket_ = -1;
  }
  return o;
}

Outcome Pool::say_hello(const JobIdentity& identity, std::vector<VgpuPlace>* places, bool* refused) {
  const std::lock_guard lock(mu_);
  identity_ = identity;
  const std::vector<std::string> doors = doors_of(identity_.door);
  const uint64_t until = now_ns() + uint64_t(patience_ms_) * 1'000'000;
  for (size_t tried = 1;; ++tried) {
    bool elsewhere = false, known_to_none = false;
    const Outcome o = greet(doors[door_ % doors.size()], places, &elsewhere, &known_to_none);
    if (refused != nullptr) *refused = known_to_none;
    if (o.ok() || !elsewhere || doors.size() == 1 || now_ns() > until) return o;
    ++door_;
    if (tried % doors.size() == 0) sleep_us(kElectionPauseUs);  // a new leader is being found
  }
}

Outcome Pool::where(uint32_t vgpu, Place* found, bool* refused) {
  std::vector<VgpuPlace> places;
  std::unique_lock lock(mu_);
  if (socket_ >= 0) {
    DoorWhere where{.vgpu = vgpu};
    DoorType type{};
    std::string payload;
    Outcome o = send_frame(socket_, DoorType::kWhere, &where, sizeof where);
    if (o.ok()) o = receive_frame(socket_, patience_ms_, &type, &payload);
    if (o.ok() && type == DoorType::kRefused) {
      int32_t code = 0;
      const Outcome refusal = parse_refusal(payload, &code);
      if (refused != nullptr) *refused = code != kNotLeaderRefusal;
      if (code != kNotLeaderRefusal) return refusal;
    }
    DoorPlace place;
    if (o.ok() && type == DoorType::kPlace && parse_place(payload, &place).ok()) {
      if (place.vgpu != vgpu) return Outcome::fail("the scheduler answered for another vGPU");
      *found = {place.epoch, place.endpoint, (place.flags & kPlaceComing) != 0};
      return {};
    }
    close(socket_);  // the scheduler may have been restarted: once more from the beginning
    socket_ = -1;
  }
  lock.unlock();
  if (Outcome o = say_hello(JobIdentity(identity_), &places, refused); !o.ok()) return o;
  if (vgpu >= places.size()) return Outcome::fail("the scheduler does not know this vGPU any more");
  *found = {places[vgpu].epoch, places[vgpu].endpoint, places[vgpu].coming};
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
    *outcome = type == DoorType::kRefused ? parse_refusal(payload) : parse_usage(payload, usage);
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
