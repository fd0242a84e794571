#pragma once

// Which card the software GPU looks like: its attributes, as cuDeviceGetAttribute gives them.

#include <cstdint>
#include <string>
#include <string_view>

namespace softgpu {

struct Profile {
  std::string_view name;   // as SOFTGPU_PROFILE has it
  std::string_view model;  // for the device's name
  int major = 8, minor = 0;
  int multiprocessors = 108;
  int clock_khz = 1410000;
  int memory_clock_khz = 1215000;
  int memory_bus_bits = 5120;
  int l2_bytes = 40 << 20;
  int shared_per_multiprocessor = 164 << 10;
  int shared_per_block_optin = 163 << 10;
  int threads_per_multiprocessor = 2048;
  int blocks_per_multiprocessor = 32;
  int pci_device_id = 0;
  int pci_subsystem_id = 0;
  int single_to_double = 2;  // how much faster single precision is
  int copy_engines = 3;
  uint64_t memory_bytes = 16ull << 30;  // unless SOFTGPU_MEMORY says otherwise

  unsigned capability() const { return static_cast<unsigned>(major * 10 + minor); }
};

inline constexpr int kRegistersPerMultiprocessor = 65536;
inline constexpr int kReservedSharedPerBlock = 1024;
inline constexpr int kSharedPerBlock = 48 << 10;
inline constexpr int kThreadsPerBlock = 1024;

// Null for a name that does not exist.
const Profile* find_profile(std::string_view name);
// "8.0, 13.0, h200"
std::string profile_names();

// False for attributes that do not exist. Those that differ between devices of one kind (PCI) are the device's.
bool profile_attribute(const Profile& profile, int attribute, int* value);

}  // namespace softgpu
