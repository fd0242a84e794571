#include "interpose/door_answers.h"

#include <cstring>

#include "base/log.h"

namespace tide {
namespace {

template <class T>
const char* take(const char* from, uint32_t count, std::vector<T>* to) {
  to->resize(count);
  if (count != 0) memcpy(to->data(), from, count * sizeof(T));
  return from + count * sizeof(T);
}

bool take_refused(const std::string& payload, DoorRefused* refused) {
  if (payload.size() < sizeof *refused) return false;
  memcpy(refused, payload.data(), sizeof *refused);
  refused->message[sizeof refused->message - 1] = 0;
  return true;
}

}  // namespace

Outcome parse_refusal(const std::string& payload, int32_t* code) {
  DoorRefused refused;
  const bool understood = take_refused(payload, &refused);
  if (code != nullptr) *code = understood ? refused.code : 0;
  return Outcome::fail(understood ? refused.message : "the scheduler refused without a reason");
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
    place.coming = (vgpu.flags & kPlaceComing) != 0;
    place.endpoint = vgpu.endpoint;
    places->push_back(std::move(place));
  }
  return {};
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

Outcome parse_place(const std::string& payload, DoorPlace* place) {
  if (payload.size() < sizeof *place) return Outcome::fail("the scheduler's answer is too short");
  memcpy(place, payload.data(), sizeof *place);
  place->endpoint[sizeof place->endpoint - 1] = 0;
  return {};
}

Outcome parse_opened(DoorType type, const std::string& payload, DoorOpened* opened, int* refusal) {
  if (DoorRefused refused; type == DoorType::kRefused && take_refused(payload, &refused)) {
    *refusal = refused.code;
    return Outcome::fail(refused.message);
  }
  if (type != DoorType::kOpened || payload.size() < sizeof *opened) {
    return Outcome::fail("the GPU server gave an answer that does not fit");
  }
  memcpy(opened, payload.data(), sizeof *opened);
  opened->transport_data[sizeof opened->transport_data - 1] = 0;
  return {};
}

}  // namespace tide
