#include "scheduler/door.h"

#include <string.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/log.h"
#include "scheduler/job_stats.h"
#include "scheduler/remote_error.h"
#include "scheduler/token.h"
#include "transport/door.h"

namespace tide::sched {
namespace {

// CUresult values; the scheduler does not know cuda.h.
constexpr int32_t kInvalidValue = 1;
constexpr int32_t kNoDevice = 100;
constexpr int32_t kNotPermitted = 800;

constexpr size_t kClientsShown = 16 * 1024;  // in a kUsage frame

template <typename T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
bool read_as(const std::string& payload, T* value) {
  if (payload.size() != sizeof *value) return false;
  memcpy(value, payload.data(), sizeof *value);
  return true;
}

// NUL-terminated within its field.
bool read_text(const char* field, size_t bytes, std::string* text) {
  const size_t length = strnlen(field, bytes);
  if (length == bytes) return false;
  text->assign(field, length);
  return true;
}

void write_text(char* field, size_t bytes, const std::string& text) {
  const size_t length = text.size() < bytes ? text.size() : bytes - 1;
  memcpy(field, text.data(), length);
}

// During a move both ends of it count, and both name the processes.
std::string usage_frame(const JobStats& stats, uint32_t vgpus) {
  std::vector<DoorVgpuUsage> usage(vgpus);
  std::map<std::pair<uint32_t, uint32_t>, uint64_t> clients;  // by vGPU and process
  for (const auto each : stats.vgpus()) {
    if (each.getVgpu() >= vgpus) continue;
    DoorVgpuUsage& vgpu = usage[each.getVgpu()];
    vgpu.known = 1;
    vgpu.resident_bytes = std::max(vgpu.resident_bytes, each.getResidentBytes());
    vgpu.busy_permille = std::min(1000u, vgpu.busy_permille + each.getBusyPermille());
    for (const auto client : each.getClients()) {
      uint64_t& bytes = clients[{each.getVgpu(), client.getPid()}];
      bytes = std::max(bytes, client.getResidentBytes());
      if (clients.size() >= kClientsShown) break;
    }
  }
  std::string frame = bytes_of(DoorUsage{.vgpu_count = vgpus, .client_count = uint32_t(clients.size())});
  for (const DoorVgpuUsage& each : usage) frame += bytes_of(each);
  for (const auto& [who, bytes] : clients) {
    frame += bytes_of(DoorClientUsage{.vgpu = who.first, .pid = who.second, .resident_bytes = bytes});
  }
  return frame;
}

}  // namespace

struct Door::Client {
  kj::Own<kj::AsyncIoStream> stream;
  DoorHeader header;
  std::string payload;
  DoorType type = DoorType::kRefused;
  std::string wrong = "this is no greeting of a Tidepool client";  // with what was received
  std::string job;
  std::shared_ptr<Port::Place> place;
  Client(kj::Own<kj::AsyncIoStream> s, std::shared_ptr<Port::Place> p) : stream(kj::mv(s)), place(std::move(p)) {}
};

kj::Promise<void> Door::serve(kj::Own<kj::AsyncIoStream> stream, std::shared_ptr<Port::Place> place) {
  auto client = kj::heap<Client>(kj::mv(stream), std::move(place));
  Client& c = *client;
  return receive(c)
      .then([this, &c](bool understood) -> kj::Promise<void> {
        if (!understood || c.type != DoorType::kHello) return refuse(c, kInvalidValue, c.wrong);
        return hello(c);
      })
      .attach(kj::mv(client));
}

kj::Promise<bool> Door::receive(Client& c) {
  return c.stream->tryRead(&c.header, sizeof c.header, sizeof c.header)
      .then([this, &c](size_t got) -> kj::Promise<bool> {
        if (got != sizeof c.header) return false;
        const Outcome sound = check_header(c.header, "the client", "this scheduler");
        if (!sound.ok()) c.wrong = sound.message();
        // What a client may say here is short.
        const DoorHeader& h = c.header;
        if (!sound.ok() || h.payload_bytes > sizeof(DoorHello)) return false;
        c.type = DoorType(h.type);
        c.payload.resize(h.payload_bytes);
        return timer_
            .timeoutAfter(kPortSpeakMs * kj::MILLISECONDS,
                          c.stream->tryRead(c.payload.data(), c.payload.size(), c.payload.size()))
            .then([&c](size_t bytes) { return bytes == c.payload.size(); });
      });
}

kj::Promise<void> Door::send(Client& c, uint16_t type, std::string payload) {
  DoorHeader header;
  header.type = type;
  header.payload_bytes = uint32_t(payload.size());
  const std::string frame = bytes_of(header) + payload;
  auto kept = kj::heapArray<kj::byte>(reinterpret_cast<const kj::byte*>(frame.data()), frame.size());
  auto written = c.stream->write(kept.begin(), kept.size());
  return written.attach(kj::mv(kept));
}

kj::Promise<void> Door::refuse(Client& c, int32_t code, const std::string& message) {
  DoorRefused refused;
  refused.code = code;
  write_text(refused.message, sizeof refused.message, message);
  return send(c, uint16_t(DoorType::kRefused), bytes_of(refused)).then([&c] { c.stream->shutdownWrite(); });
}

kj::Promise<void> Door::hello(Client& c) {
  DoorHello hello;
  if (!read_as(c.payload, &hello) || !read_text(hello.job, sizeof hello.job, &c.job)) {
    return refuse(c, kInvalidValue, "this is no greeting of a Tidepool client");
  }
  if (core_.refuses()) return refuse(c, kNotLeaderRefusal, not_the_leader(core_.leader()));
  const Job* job = core_.ledger.by_id(c.job);
  const std::string shown(reinterpret_cast<const char*>(hello.token), sizeof hello.token);
  if (job == nullptr || job->ended() || !same_token(job->record.token, shown)) {
    return refuse(c, kNotPermitted,
                  "there is no running job " + c.job + " with this token; start programs with `tide run`");
  }
  c.place->known();
  if (!job->started)
    return refuse(c, kNoDevice, "job " + c.job + " does not run yet; `tide why " + c.job + "` says why");
  DoorJob answer;
  answer.vgpu_count = uint32_t(job->vgpus.size());
  std::string payload = bytes_of(answer);
  for (const Vgpu& vgpu : job->vgpus) {
    const Server* server = core_.ledger.server(vgpu.at.server);
    DoorVgpu out;
    out.epoch = vgpu.epoch;
    out.memory_bytes = job->record.memory_bytes;
    write_text(out.endpoint, sizeof out.endpoint, server == nullptr ? "" : server->endpoint);
    out.device_info_bytes = uint32_t(vgpu.device_info.size());
    out.flags = vgpu.comes_back() ? kPlaceComing : 0;
    payload += bytes_of(out) + vgpu.device_info;
  }
  if (payload.size() > kDoorPayloadMax)
    return refuse(c, kInvalidValue, "the job's description is too long for one frame");
  return send(c, uint16_t(DoorType::kJob), payload).then([this, &c] { return ask(c); });
}

kj::Promise<void> Door::ask(Client& c) {
  return receive(c).then([this, &c](bool understood) -> kj::Promise<void> {
    if (!understood || core_.refuses()) return kj::READY_NOW;  // closed: the client begins anew, where it is answered
    const Job* job = core_.ledger.by_id(c.job);
    if (job == nullptr || job->ended()) return refuse(c, kNotPermitted, "job " + c.job + " has ended");
    if (c.type == DoorType::kWhere) return where(c, *job);
    if (c.type == DoorType::kMeasure && c.payload.empty()) return measure(c, *job);
    return refuse(c, kInvalidValue, "only kWhere and kMeasure are understood here");
  });
}

kj::Promise<void> Door::where(Client& c, const Job& job) {
  DoorWhere where;
  if (!read_as(c.payload, &where)) return refuse(c, kInvalidValue, "this is no question of a Tidepool client");
  if (where.vgpu >= job.vgpus.size()) return refuse(c, kInvalidValue, "the job has no such virtual GPU");
  const Vgpu& vgpu = job.vgpus[where.vgpu];
  const Server* server = core_.ledger.server(vgpu.at.server);
  DoorPlace place;
  place.vgpu = where.vgpu;
  place.epoch = vgpu.epoch;
  place.flags = vgpu.comes_back() ? kPlaceComing : 0;
  write_text(place.endpoint, sizeof place.endpoint, server == nullptr ? "" : server->endpoint);
  return send(c, uint16_t(DoorType::kPlace), bytes_of(place)).then([this, &c] { return ask(c); });
}

kj::Promise<void> Door::measure(Client& c, const Job& job) {
  const uint32_t vgpus = uint32_t(job.vgpus.size());
  return JobStats::ask(core_, job).then([this, &c, vgpus](JobStats stats) {
    return send(c, uint16_t(DoorType::kUsage), usage_frame(stats, vgpus)).then([this, &c] { return ask(c); });
  });
}

}  // namespace tide::sched
