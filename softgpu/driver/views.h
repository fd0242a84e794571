#pragma once

// Which device's kernels see which chunks. Every device has an address space of its own, made when it is first used;
// one more holds everything, for copies, which need no peer access.
//
// Threads: any.

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "softgpu/mem/address_space.h"

namespace softgpu {

inline constexpr int kDevicesMax = 64;

// A set of devices, one bit each.
using DeviceSet = uint64_t;
inline constexpr DeviceSet kAllDevices = ~DeviceSet{0};
inline DeviceSet only(int device) { return DeviceSet{1} << device; }

class Views {
 public:
  Views();

  AddressSpace& all() { return all_; }
  AddressSpace& of(int device);
  HostPages& host_pages() { return *host_pages_; }

  // Whole chunks of memory of `owner`. With `follows_peers` those devices see it that have access to the owner's
  // memory, else those of the set.
  struct Place {
    std::byte* host = nullptr;
    uint64_t bytes = 0;
    int owner = 0;
    bool follows_peers = true;
    DeviceSet seen_by = 0;
  };
  void add(uint64_t address, const Place& place);
  void remove(uint64_t address);
  // Of a place that does not follow peers.
  void set_seen_by(uint64_t address, DeviceSet devices);

  // Kernels on `accessor` may, or may no longer, touch what `owner` has; counted.
  void set_peer(int accessor, int owner, bool enabled);
  bool peer(int accessor, int owner) const;

 private:
  // All require mu_.
  bool sees(int device, const Place& place) const;
  void show(int device, uint64_t address, const Place& place);

  const std::shared_ptr<HostPages> host_pages_;
  AddressSpace all_;
  mutable std::mutex mu_;
  std::array<std::unique_ptr<AddressSpace>, kDevicesMax> views_;            // guarded by mu_
  std::map<uint64_t, Place> places_;                                        // by address; guarded by mu_
  std::array<std::array<uint16_t, kDevicesMax>, kDevicesMax> peer_uses_{};  // [owner][accessor]; guarded by mu_
};

}  // namespace softgpu
