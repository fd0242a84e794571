#pragma once

// Moving bytes between the program's memory and vGPUs.

#include <cuda.h>

#include <cstddef>
#include <cstdint>

#include "interpose/process.h"

namespace tide {

constexpr uint64_t kLowestAddress = 64 << 10;  // no program has anything below: vm.mmap_min_addr

// `height` rows, `pitch` apart.
struct HostRect {
  const std::byte* data = nullptr;
  uint64_t pitch = 0;
  bool stays = false;  // nobody changes it until the copy is over,
  bool waits = false;  // or only until the call returns, which may wait
};

void pack_rows(std::byte* to, HostRect from, uint64_t width, uint64_t height);

// The commands themselves, cut into records. Nothing is checked. *sequence: of the last command. `staging`: for what is
// large; not for the service thread.
CUresult send_copy_in(Stream& stream, uint64_t address, uint64_t pitch, HostRect source, uint64_t width,
                      uint64_t height, uint64_t* sequence, Staging* staging = nullptr);
CUresult send_copy_out(Stream& stream, uint64_t address, uint64_t pitch, const Landing& landing, uint64_t* sequence);

// One side of a copy: an address of the program or of a vGPU, told apart by the address alone.
struct CopySide {
  uint64_t address = 0;
  uint64_t pitch = 0;
  // Filled in by copy(). The vGPU that finds the bytes at `address`, or null; and whether they are host memory.
  Vgpu* vgpu = nullptr;
  bool host = false;
};

struct CopyOrder {
  CopySide to, from;
  uint64_t width = 0, height = 1;
  bool synchronous = false;
  bool in_graph = false;      // of a graph's launch, which waits for nothing and reads when the stream gets there
  CUstream stream = nullptr;  // of an asynchronous one
};

// Checks, and does what the kinds of the two addresses ask for. Asynchronous copies to pageable memory wait as well.
CUresult copy(const CopyOrder& order);
// cuMemcpyPeer: after and before everything on the default streams of both contexts.
CUresult copy_between(Context& to_context, Context& from_context, const CopyOrder& order);

}  // namespace tide
