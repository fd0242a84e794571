#pragma once

// How NVIDIA's tools lay out a fat binary: a header, then entries one behind the other, each an image for one compute
// capability. No document describes it; this is what nvcc 13.0 writes and NVIDIA's libraries of CUDA 13.0 contain.

#include <cstdint>

namespace tide {

inline constexpr uint32_t kFatbinWrapperMagic = 0x466243b1;
inline constexpr uint32_t kFatbinMagic = 0xba55ed50;
inline constexpr uint16_t kFatbinVersion = 1;
inline constexpr uint16_t kFatbinEntryVersion = 0x101;

inline constexpr uint16_t kFatbinPtx = 1;
inline constexpr uint16_t kFatbinElf = 2;  // machine code

inline constexpr uint64_t kFatbin64Bit = 0x1;
inline constexpr uint64_t kFatbinDebug = 0x2;
inline constexpr uint64_t kFatbinLinux = 0x10;
inline constexpr uint64_t kFatbinLz4 = 0x2000;
inline constexpr uint64_t kFatbinZstd = 0x8000;
inline constexpr uint64_t kFatbinExactly = 0x100000;   // "sm_90a": runs on exactly that capability
inline constexpr uint64_t kFatbinFamily = 0x200000;    // "sm_100f": runs on later ones of the same major number, too
inline constexpr uint64_t kFatbinCapsule = 0x1000000;  // all machine code from sm_100 on; what it allows is not known

// What a program registers or loads (fatbinary_section.h calls it __fatBinC_Wrapper_t).
struct FatbinWrapper {
  uint32_t magic;
  uint32_t version;    // 2: of a program linked with -rdc=true
  const void* fatbin;  // of version 2: what nvlink made, perhaps null
  const void* more;    // of version 2: a null-terminated array of the units' fat binaries
};

struct FatbinHeader {
  uint32_t magic;
  uint16_t version;
  uint16_t header_bytes;
  uint64_t entries_bytes;
};
static_assert(sizeof(FatbinHeader) == 16);

struct FatbinEntry {
  uint16_t kind;
  uint16_t version;
  uint32_t header_bytes;      // with the file's name and the options, which follow this struct
  uint64_t payload_bytes;     // as stored, padded to 8
  uint32_t compressed_bytes;  // without the padding; 0 when not compressed
  uint32_t options_offset;
  uint32_t producer;
  uint32_t capability;  // e.g. 80
  uint32_t name_offset;
  uint32_t name_bytes;
  uint64_t flags;
  uint64_t reserved;
  uint64_t text_bytes;  // after decompression
};
static_assert(sizeof(FatbinEntry) == 64);

// Whether a device of this capability runs the entry: machine code from its own capability on within the major number,
// PTX on all later ones.
inline bool fatbin_entry_runs(const FatbinEntry& entry, unsigned capability) {
  if (entry.flags & kFatbinExactly) return entry.capability == capability;
  if (entry.kind == kFatbinElf && entry.capability / 10 != capability / 10) return false;
  return entry.capability <= capability;
}

}  // namespace tide
