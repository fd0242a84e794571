#pragma once

// The maxima that concern more than one room. Those of the rings are in transport/layout.h.

#include <cstdint>

namespace tide {

inline constexpr uint32_t kVgpusMax = 64;  // a job's; 64 ranges of kVgpuRangeBytes fill the window exactly

// Every vGPU owns a fixed range of virtual addresses, the same in the client and in each worker that will ever serve
// it. The window avoids what Linux and the sanitizers use: it begins above ASan's shadow and ends below PIE programs.
inline constexpr uint64_t kWindowBase = 0x2000'0000'0000;
inline constexpr uint64_t kVgpuRangeBytes = 0x80'0000'0000;  // 512 GiB: three times the largest card, for fragmentation
inline constexpr uint64_t vgpu_range_base(uint32_t vgpu) { return kWindowBase + vgpu * kVgpuRangeBytes; }
// The client's allocator uses the range from its start; module images (device globals) lie in its last part, where the
// worker chooses their place.
inline constexpr uint64_t kImageZoneBytes = 0x10'0000'0000;  // 64 GiB
inline constexpr uint64_t kChunkBytes = 2u << 20;            // granule of mapping, of moving and of hashing

// Where host memory lies that kernels reach: the same addresses in the program and in its workers. Offsets in it are
// offsets in the memory file that the program gives to workers of its own machine.
inline constexpr uint64_t kHostZoneBase = 0x4000'0000'0000;
inline constexpr uint64_t kHostZoneBytes = 0x400'0000'0000;  // 4 TiB

inline constexpr uint32_t kTokenBytes = 32;
inline constexpr uint32_t kIdBytes = 64;  // job ids, server names: NUL-terminated

}  // namespace tide
