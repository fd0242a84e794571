#include "server/memory.h"

#include <algorithm>

#include "base/log.h"

namespace tide {
namespace {

// The client counts its quota by whole chunks; a little more does no harm and spares us its rounding.
constexpr uint64_t kQuotaSlack = 64u << 20;

CUmemAllocationProp properties(CUdevice device) {
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop.location.id = device;
  return prop;
}

uint32_t chunk_bit(uint64_t piece, uint64_t chunk) { return 1u << ((chunk - piece) / kChunkBytes); }

}  // namespace

Memory::~Memory() {
  const Driver& driver = library_.calls;
  while (!pieces_.empty()) drop(pieces_.begin());
  if (scrub_ != nullptr) driver.cuStreamDestroy_v2(scrub_);
  if (reserved_bytes_ != 0) driver.cuMemAddressFree(base_, reserved_bytes_);
}

Outcome Memory::start(uint32_t vgpu, uint64_t quota) {
  if (vgpu >= kVgpusMax) return Outcome::fail(format("there is no vGPU %u", vgpu));
  const Driver& driver = library_.calls;
  base_ = vgpu_range_base(vgpu);
  range_bytes_ = kVgpuRangeBytes;
  quota_ = quota;
  const CUmemAllocationProp prop = properties(contexts_.device());
  size_t granularity = 0;
  CUresult result = driver.cuMemGetAllocationGranularity(&granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
  if (result != CUDA_SUCCESS || kChunkBytes % std::max<size_t>(granularity, 1) != 0) {
    return Outcome::fail(format("the GPU's memory comes in pieces of %zu bytes, not of 2 MiB (%s)", granularity,
                                error_text(driver, result).c_str()));
  }
  // The software GPU places module images itself, in the last part of the range.
  const uint64_t bytes = kVgpuRangeBytes - kImageZoneBytes;
  CUdeviceptr got = 0;
  result = driver.cuMemAddressReserve(&got, bytes, kChunkBytes, base_, 0);
  if (result != CUDA_SUCCESS) {
    return Outcome::fail(format("cannot reserve the vGPU's addresses at 0x%llx: %s",
                                static_cast<unsigned long long>(base_), error_text(driver, result).c_str()));
  }
  if (got != base_) {
    driver.cuMemAddressFree(got, bytes);
    return Outcome::fail(
        format("the driver reserved addresses at 0x%llx in place of 0x%llx; this driver cannot serve "
               "vGPUs (is something else mapped there?)",
               static_cast<unsigned long long>(got), static_cast<unsigned long long>(base_)));
  }
  reserved_bytes_ = bytes;
  result = driver.cuStreamCreateWithPriority(&scrub_, CU_STREAM_NON_BLOCKING, 0);
  return result == CUDA_SUCCESS ? Outcome() : Outcome::fail("cannot make a stream: " + error_text(driver, result));
}

bool Memory::charge(uint64_t bytes) {
  if (bytes > quota_ + kQuotaSlack || mapped_bytes_ + charged_bytes_ + bytes > quota_ + kQuotaSlack) return false;
  charged_bytes_ += bytes;
  return true;
}

Memory::Pieces::iterator Memory::piece_at(uint64_t address) {
  auto next = pieces_.upper_bound(address);
  if (next == pieces_.begin()) return pieces_.end();
  --next;
  return address < next->first + next->second.bytes ? next : pieces_.end();
}

bool Memory::in_range(uint64_t address, uint64_t bytes) const {
  return address >= base_ && address - base_ <= range_bytes_ && bytes <= range_bytes_ - (address - base_);
}

CUresult Memory::map(uint64_t address, uint64_t bytes) {
  if (bytes == 0 || address % kChunkBytes != 0 || bytes % kChunkBytes != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!in_range(address, bytes) || address - base_ + bytes > reserved_bytes_) return CUDA_ERROR_INVALID_VALUE;
  if (mapped_bytes_ + charged_bytes_ + bytes > quota_ + kQuotaSlack) return CUDA_ERROR_OUT_OF_MEMORY;
  for (uint64_t at = address; at < address + bytes; at += kChunkBytes) {
    const auto piece = piece_at(at);
    if (piece != pieces_.end() && piece->second.live & chunk_bit(piece->first, at)) return CUDA_ERROR_ALREADY_MAPPED;
  }
  uint64_t at = address;
  while (at < address + bytes) {
    const auto piece = piece_at(at);
    if (piece != pieces_.end()) {
      if (piece->second.live == 0) condemned_bytes_ -= piece->second.bytes;
      piece->second.live |= chunk_bit(piece->first, at);
      piece->second.condemned_since = 0;
      mapped_bytes_ += kChunkBytes;
      at += kChunkBytes;
      continue;
    }
    uint64_t end = std::min(address + bytes, at + kPieceBytes);
    const auto next = pieces_.upper_bound(at);
    if (next != pieces_.end()) end = std::min(end, next->first);
    if (const CUresult result = create(at, end - at); result != CUDA_SUCCESS) {
      if (at > address) unmap(address, at - address, ~uint64_t{0} >> 1);
      return result;
    }
    at = end;
  }
  return CUDA_SUCCESS;
}

CUresult Memory::create(uint64_t address, uint64_t bytes) {
  const Driver& driver = library_.calls;
  contexts_.use(0);
  Piece piece;
  piece.bytes = bytes;
  const CUmemAllocationProp prop = properties(contexts_.device());
  CUresult result = driver.cuMemCreate(&piece.handle, bytes, &prop, 0);
  if (result != CUDA_SUCCESS) return result;
  result = back(address, &piece);
  if (result != CUDA_SUCCESS) {
    driver.cuMemRelease(piece.handle);
    return result;
  }
  const uint64_t chunks = bytes / kChunkBytes;
  piece.live = uint32_t((uint64_t{1} << chunks) - 1);
  pieces_[address] = piece;
  mapped_bytes_ += bytes;
  return CUDA_SUCCESS;
}

CUresult Memory::back(uint64_t address, Piece* piece) {
  const Driver& driver = library_.calls;
  CUresult result = driver.cuMemMap(address, piece->bytes, 0, piece->handle, 0);
  if (result != CUDA_SUCCESS) return result;
  CUmemAccessDesc access = {};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = contexts_.device();
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  result = driver.cuMemSetAccess(address, piece->bytes, &access, 1);
  // What another tenant left there must not be seen. The software GPU's memory is new.
  if (result == CUDA_SUCCESS && !library_.software) result = zero(address, piece->bytes);
  if (result != CUDA_SUCCESS) driver.cuMemUnmap(address, piece->bytes);
  return result;
}

CUresult Memory::zero(uint64_t address, uint64_t bytes) {
  const Driver& driver = library_.calls;
  const CUresult result = driver.cuMemsetD32Async(address, 0, bytes / 4, scrub_);
  return result == CUDA_SUCCESS ? driver.cuStreamSynchronize(scrub_) : result;
}

CUresult Memory::unmap(uint64_t address, uint64_t bytes, uint64_t sequence) {
  if (bytes == 0 || address % kChunkBytes != 0 || bytes % kChunkBytes != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!in_range(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = CUDA_SUCCESS;
  for (uint64_t at = address; at < address + bytes; at += kChunkBytes) {
    const auto piece = piece_at(at);
    if (piece == pieces_.end() || !(piece->second.live & chunk_bit(piece->first, at))) {
      result = CUDA_ERROR_NOT_MAPPED;
      continue;
    }
    piece->second.live &= ~chunk_bit(piece->first, at);
    mapped_bytes_ -= kChunkBytes;
    if (piece->second.live != 0) continue;
    piece->second.condemned_since = sequence;
    condemned_bytes_ += piece->second.bytes;
  }
  return result;
}

void Memory::collect(const Streams& streams) {
  if (condemned_bytes_ == 0) return;
  for (auto piece = pieces_.begin(); piece != pieces_.end();) {
    const auto next = std::next(piece);
    const Piece& p = piece->second;
    if (p.live == 0 && (streams.idle() || streams.done_before(p.condemned_since))) {
      condemned_bytes_ -= p.bytes;
      drop(piece);
    }
    piece = next;
  }
}

void Memory::drop(Pieces::iterator piece) {
  const Driver& driver = library_.calls;
  contexts_.use(0);
  driver.cuMemUnmap(piece->first, piece->second.bytes);
  driver.cuMemRelease(piece->second.handle);
  pieces_.erase(piece);
}

std::vector<MemoryRange> Memory::ranges() const {
  std::vector<MemoryRange> found;
  for (const auto& [address, piece] : pieces_) {
    for (uint64_t at = address; at < address + piece.bytes; at += kChunkBytes) {
      if (!(piece.live & chunk_bit(address, at))) continue;
      if (!found.empty() && found.back().address + found.back().bytes == at) {
        found.back().bytes += kChunkBytes;
      } else {
        found.push_back({at, kChunkBytes});
      }
    }
  }
  return found;
}

}  // namespace tide
