#pragma once

// One software GPU: what it says of itself, its memory account and its primary context.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "softgpu/driver/context.h"
#include "softgpu/driver/kept_memory.h"
#include "softgpu/driver/profile.h"

namespace softgpu {

struct DeviceIdentity {
  uint8_t uuid[16] = {};
  int32_t pci_domain = 0, pci_bus = 0, pci_device = 0;
};

class Device {
 public:
  // `index` is what the program counts; `physical` what the identity is made from (CUDA_VISIBLE_DEVICES chooses).
  Device(int index, int physical, const Profile& profile, std::string name, uint64_t memory_bytes);

  const int index;
  const Profile& profile;
  const std::string name;
  const uint64_t memory_bytes;
  const DeviceIdentity identity;

  bool attribute(int which, int* value) const;
  std::string pci_text() const;  // "0000:01:00.0"

  // The account of device memory: false when it does not fit.
  bool take(uint64_t bytes);
  void give(uint64_t bytes);
  uint64_t used() const { return used_.load(); }
  // False: its file cannot be had. Before anything is allocated.
  bool keep_memory(const std::string& path);
  KeptMemory* kept_memory() const { return kept_memory_.get(); }  // null: memory is new from the system

  const std::shared_ptr<Context>& primary() const { return primary_; }
  CUresult retain_primary();
  CUresult release_primary();
  void reset_primary();
  // No longer after a reset, until somebody wants it anew.
  bool primary_active() const { return primary_->alive && !fresh_; }

 private:
  std::shared_ptr<Context> primary_;
  std::unique_ptr<KeptMemory> kept_memory_;
  std::atomic<uint64_t> used_{0};
  std::mutex mu_;
  unsigned retained_ = 0;           // guarded by mu_
  std::atomic<bool> fresh_{false};  // the primary context was reset and not retained since
};

// What the environment asks for: SOFTGPU_DEVICES, SOFTGPU_MEMORY, SOFTGPU_KEEP_MEMORY, SOFTGPU_PROFILE, SOFTGPU_NAME,
// CUDA_VISIBLE_DEVICES.
// Fails, with one line in the log, when a value cannot be read.
bool devices_from_environment(std::vector<std::unique_ptr<Device>>* devices);

// "16GiB", "512MiB", "1.5GiB" or plain bytes.
bool parse_size(const std::string& text, uint64_t* bytes);

}  // namespace softgpu
