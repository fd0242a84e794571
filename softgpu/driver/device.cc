#include "softgpu/driver/device.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "api/composed/environment.h"
#include "base/log.h"
#include "base/mix.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/views.h"

namespace softgpu {
namespace {

// The same in every process of a host, different on every host.
uint64_t identity_seed() {
  const char* seed = std::getenv("SOFTGPU_SEED");
  char host[256] = {};
  if (seed == nullptr) gethostname(host, sizeof(host) - 1);
  uint64_t hash = 14695981039346656037u;
  for (const char* c = seed == nullptr ? host : seed; *c != 0; ++c) {
    hash = (hash ^ static_cast<unsigned char>(*c)) * 1099511628211u;
  }
  return hash;
}

DeviceIdentity make_identity(int physical) {
  DeviceIdentity identity;
  const uint64_t seed = identity_seed() + static_cast<uint64_t>(physical);
  const uint64_t words[2] = {tide::mix(seed), tide::mix(seed ^ 0x5bd1e995)};
  std::memcpy(identity.uuid, words, sizeof(identity.uuid));
  identity.uuid[6] = static_cast<uint8_t>((identity.uuid[6] & 0x0f) | 0x40);  // a random UUID by its own account
  identity.uuid[8] = static_cast<uint8_t>((identity.uuid[8] & 0x3f) | 0x80);
  identity.pci_bus = physical + 1;
  return identity;
}

bool parse_number(const char* text, long least, long most, long* value) {
  char* end = nullptr;
  *value = std::strtol(text, &end, 10);
  return end != text && *end == 0 && *value >= least && *value <= most;
}

bool bad_setting(const char* variable, const char* value, const char* expected) {
  tide::log(tide::LogLevel::kError, "%s=%s is not understood: expected %s", variable, value, expected);
  return false;
}

std::vector<uint32_t> visible_devices(uint32_t count) {
  std::vector<DeviceIdentity> identities(count);
  std::vector<const uint8_t*> uuids;
  for (uint32_t i = 0; i < count; ++i) {
    identities[i] = make_identity(static_cast<int>(i));
    uuids.push_back(identities[i].uuid);
  }
  return tide::composed::visible_devices(std::getenv("CUDA_VISIBLE_DEVICES"), uuids);
}

}  // namespace

Device::Device(int its_index, int physical, const Profile& its_profile, std::string its_name, uint64_t bytes)
    : index(its_index),
      profile(its_profile),
      name(std::move(its_name)),
      memory_bytes(bytes),
      identity(make_identity(physical)),
      primary_(std::make_shared<Context>(*this, driver().contexts.next(), true)) {
  driver().contexts.add(primary_->handle, primary_);
}

bool Device::attribute(int which, int* value) const {
  switch (which) {
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
      *value = identity.pci_bus;
      return true;
    case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID:
      *value = identity.pci_device;
      return true;
    case CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID:
      *value = identity.pci_domain;
      return true;
    case CU_DEVICE_ATTRIBUTE_MULTI_GPU_BOARD_GROUP_ID:
      *value = index;
      return true;
    default:
      return profile_attribute(profile, which, value);
  }
}

std::string Device::pci_text() const {
  return tide::format("%04x:%02x:%02x.0", identity.pci_domain, identity.pci_bus, identity.pci_device);
}

bool Device::take(uint64_t bytes) {
  uint64_t used = used_.load();
  do {
    if (bytes > memory_bytes || used > memory_bytes - bytes) return false;
  } while (!used_.compare_exchange_weak(used, used + bytes));
  return true;
}

void Device::give(uint64_t bytes) { used_ -= bytes; }

bool Device::keep_memory(const std::string& path) {
  std::string name = path;
  for (const uint8_t byte : identity.uuid) name += tide::format("%02x", byte);
  kept_memory_ = KeptMemory::open(name, memory_bytes);
  return kept_memory_ != nullptr;
}

CUresult Device::retain_primary() {
  const std::lock_guard lock(mu_);
  if (retained_++ == 0) primary_->start();
  fresh_ = false;
  return CUDA_SUCCESS;
}

CUresult Device::release_primary() {
  const std::lock_guard lock(mu_);
  if (retained_ == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (--retained_ == 0) primary_->stop();
  return CUDA_SUCCESS;
}

void Device::reset_primary() {
  const std::lock_guard lock(mu_);
  if (!primary_->alive) return;
  primary_->stop();
  // References stay: whoever holds one finds a fresh context.
  if (retained_ > 0) primary_->start();
  fresh_ = true;
}

bool parse_size(const std::string& text, uint64_t* bytes) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !(number >= 0) || number > 1e18) return false;
  constexpr struct {
    const char* suffix;
    double factor;
  } kUnits[] = {{"", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", double(1ull << 40)}};
  for (const auto& unit : kUnits) {
    if (std::strcmp(end, unit.suffix) == 0) {
      *bytes = static_cast<uint64_t>(number * unit.factor);
      return true;
    }
  }
  return false;
}

bool devices_from_environment(std::vector<std::unique_ptr<Device>>* devices) {
  long count = 1;
  const char* text = std::getenv("SOFTGPU_DEVICES");
  if (text != nullptr && !parse_number(text, 0, kDevicesMax, &count)) {
    return bad_setting("SOFTGPU_DEVICES", text, "a number from 0 to 64");
  }
  text = std::getenv("SOFTGPU_PROFILE");
  const Profile* profile = find_profile(text == nullptr ? "8.0" : text);
  if (profile == nullptr) return bad_setting("SOFTGPU_PROFILE", text, profile_names().c_str());
  uint64_t memory = profile->memory_bytes;
  text = std::getenv("SOFTGPU_MEMORY");
  if (text != nullptr && (!parse_size(text, &memory) || memory < kChunkBytes)) {
    return bad_setting("SOFTGPU_MEMORY", text, "a size of at least 2MiB, such as 16GiB");
  }
  text = std::getenv("SOFTGPU_NAME");
  std::string name = text != nullptr ? text : "Tidepool Software GPU (" + std::string(profile->model) + " profile)";
  for (const uint32_t physical : visible_devices(static_cast<uint32_t>(count))) {
    const int index = static_cast<int>(devices->size());
    devices->push_back(std::make_unique<Device>(index, static_cast<int>(physical), *profile, name, memory));
    const char* kept = std::getenv("SOFTGPU_KEEP_MEMORY");
    if (kept != nullptr && !devices->back()->keep_memory(kept)) return false;
  }
  return true;
}

}  // namespace softgpu
