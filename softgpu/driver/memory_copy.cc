// Memory's copies and fills. Pageable host memory may be anything, also nothing: the system reads and writes it, which
// says so where a plain access would end the process.

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "softgpu/driver/memory.h"
#include "softgpu/driver/simulation.h"

namespace softgpu {
namespace {

// Host memory behind the beginning of [address, address + *bytes); shortens *bytes to what is contiguous. Null for what
// lies in the window and means nothing; *pageable for what the driver knows nothing about.
std::byte* resolve(const AddressSpace& space, uint64_t address, uint64_t* bytes, bool* pageable) {
  std::byte* host = space.translate(address, *bytes);
  if (host != nullptr) return host;
  if (!in_window(address)) {
    *pageable = true;
    return reinterpret_cast<std::byte*>(address);
  }
  *bytes = std::min(*bytes, kChunkBytes - address % kChunkBytes);
  return space.translate(address, *bytes);
}

// False when a part of either side cannot be reached.
bool copy_pageable(std::byte* to, std::byte* from, uint64_t bytes) {
  static const pid_t self = getpid();  // a forked child has no driver
  constexpr uint64_t kAtOnce = 256u << 20;
  while (bytes > 0) {
    const iovec local = {to, std::min(bytes, kAtOnce)}, remote = {from, std::min(bytes, kAtOnce)};
    const ssize_t done = process_vm_readv(self, &local, 1, &remote, 1, 0);
    if (done < 0 && (errno == ENOSYS || errno == EPERM)) {  // forbidden to this process: take the program's word
      std::memmove(to, from, bytes);
      return true;
    }
    if (done <= 0) return false;
    to += done;
    from += done;
    bytes -= static_cast<uint64_t>(done);
  }
  return true;
}

}  // namespace

Memory::Copied Memory::copy(uint64_t destination, uint64_t source, uint64_t bytes) {
  if (Checker* checker = simulation().checker(); checker != nullptr) checker->copied(destination, source, bytes);
  const AddressSpace& space = views_.all();
  while (bytes > 0) {
    uint64_t piece = bytes;
    bool pageable = false;
    resolve(space, destination, &piece, &pageable);
    std::byte* const from = resolve(space, source, &piece, &pageable);
    std::byte* const to = resolve(space, destination, &piece, &pageable);
    if (from == nullptr || to == nullptr) return Copied::kNoDevice;
    if (!pageable) {
      std::memmove(to, from, piece);
    } else if (!copy_pageable(to, from, piece)) {
      return Copied::kNoHost;
    }
    destination += piece;
    source += piece;
    bytes -= piece;
  }
  return Copied::kYes;
}

bool Memory::write(uint64_t address, const std::byte* from, uint64_t bytes) {
  if (Checker* checker = simulation().checker(); checker != nullptr) checker->written(address, bytes);
  while (bytes > 0) {
    uint64_t piece = bytes;
    bool pageable = false;
    std::byte* const to = resolve(views_.all(), address, &piece, &pageable);
    if (to == nullptr || pageable) return false;
    std::memcpy(to, from, piece);
    address += piece;
    from += piece;
    bytes -= piece;
  }
  return true;
}

bool Memory::fill(uint64_t address, uint32_t pattern, unsigned width, uint64_t count) {
  uint64_t bytes = count * width;
  if (Checker* checker = simulation().checker(); checker != nullptr) checker->written(address, bytes);
  while (bytes > 0) {
    uint64_t piece = bytes;
    bool pageable = false;
    std::byte* const to = resolve(views_.all(), address, &piece, &pageable);
    if (to == nullptr || pageable) return false;
    switch (width) {
      case 1:
        std::memset(to, static_cast<int>(pattern & 0xff), piece);
        break;
      case 2:
        std::fill_n(reinterpret_cast<uint16_t*>(to), piece / 2, static_cast<uint16_t>(pattern));
        break;
      default:
        std::fill_n(reinterpret_cast<uint32_t*>(to), piece / 4, pattern);
        break;
    }
    address += piece;
    bytes -= piece;
  }
  return true;
}

}  // namespace softgpu
