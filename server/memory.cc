#include "server/memory.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"

namespace tide {
namespace {

// The client counts its quota by whole chunks; a little more does no harm and spares us its rounding.
constexpr uint64_t kQuotaSlack = 64u << 20;
// What another process has given back is on its way; one that was alone has to hear of us first.
constexpr uint64_t kGivenBackNs = 100'000'000, kHeardNs = 5'000'000'000;

// Any allocation may be asked for by another process later, and the driver wants to know that when it is made.
CUmemAllocationProp properties(CUdevice device, bool shareable) {
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.requestedHandleTypes = shareable ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : CU_MEM_HANDLE_TYPE_NONE;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop.location.id = device;
  return prop;
}

bool can_share(const Driver& driver, CUdevice device) {
  int can = 0;
  if (driver.cuMemExportToShareableHandle == nullptr || driver.cuMemImportFromShareableHandle == nullptr) return false;
  driver.cuDeviceGetAttribute(&can, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, device);
  return can != 0;
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
  shareable_ = can_share(driver, contexts_.device());
  const CUmemAllocationProp prop = properties(contexts_.device(), shareable_);
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
    return Outcome::fail(
        format("cannot reserve the vGPU's addresses at 0x%llx: %s; is there a limit on the agent's virtual "
               "memory (`ulimit -v`)?",
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

bool Memory::is_room(uint64_t bytes) {
  const uint64_t most = quota_ + kQuotaSlack, used = mapped_bytes_ + charged_bytes_;
  return bytes <= most && used + bytes <= most && shared_.grow_to(used + bytes);
}

bool Memory::charge(uint64_t bytes) {
  if (!is_room(bytes)) return false;
  charged_bytes_ += bytes;
  return true;
}

void Memory::discharge(uint64_t bytes) {
  charged_bytes_ -= bytes;
  give_back();
}

// What neither is used nor was promised.
void Memory::give_back() { shared_.shrink_to(held(condemned_bytes_)); }

CUresult Memory::promise(uint64_t bytes, bool waits) {
  shared_.end_all();
  if (bytes <= quota_ + kQuotaSlack && shared_.grow_to(bytes)) {
    promised_bytes_ = bytes;
    asked_ns_ = 0;
    give_back();
    return CUDA_SUCCESS;
  }
  give_back();
  if (!waits || bytes > quota_ + kQuotaSlack) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t now = now_ns();
  if (asked_ns_ == 0) asked_ns_ = now;
  const uint64_t patience = shared_.others_will_give() ? kHeardNs : kGivenBackNs;
  if (now < asked_ns_ + patience || now < patient_until_ns_) return CUDA_ERROR_NOT_READY;
  asked_ns_ = 0;
  return CUDA_ERROR_OUT_OF_MEMORY;
}

// With what is about to be unmapped, which this process may take at once.
uint64_t Memory::left() { return shared_.left() + held(condemned_bytes_) - held(0); }

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
  if (!is_room(bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  for (uint64_t at = address; at < address + bytes; at += kChunkBytes) {
    const auto piece = piece_at(at);
    if (piece == pieces_.end()) continue;
    if (piece->second.live & chunk_bit(piece->first, at)) return CUDA_ERROR_ALREADY_MAPPED;
    if (piece->second.view_of != nullptr) return CUDA_ERROR_OUT_OF_MEMORY;  // goes with the work that may use it
  }
  uint64_t at = address;
  while (at < address + bytes) {
    const auto piece = piece_at(at);
    if (piece != pieces_.end()) {
      const std::lock_guard lock(pieces_mu_);
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
  const CUmemAllocationProp prop = properties(contexts_.device(), shareable_);
  CUresult result = driver.cuMemCreate(&piece.handle, bytes, &prop, 0);
  if (result != CUDA_SUCCESS) return result;
  result = back(address, bytes, piece.handle);
  // What another tenant left there must not be seen.
  if (result == CUDA_SUCCESS && !library_.memory_is_new) {
    result = zero(address, bytes);
    if (result != CUDA_SUCCESS) driver.cuMemUnmap(address, bytes);
  }
  if (result != CUDA_SUCCESS) {
    driver.cuMemRelease(piece.handle);
    return result;
  }
  const uint64_t chunks = bytes / kChunkBytes;
  piece.live = uint32_t((uint64_t{1} << chunks) - 1);
  keep(address, std::move(piece));
  mapped_bytes_ += bytes;
  return CUDA_SUCCESS;
}

Outcome Memory::cannot_map(uint64_t bytes, CUresult result) const {
  return Outcome::fail(format("%llu bytes of memory cannot be had here: %s", static_cast<unsigned long long>(bytes),
                              error_text(library_.calls, result).c_str()));
}

void Memory::keep(uint64_t address, Piece piece) {
  const std::lock_guard lock(pieces_mu_);
  pieces_[address] = std::move(piece);
}

CUresult Memory::back(uint64_t address, uint64_t bytes, CUmemGenericAllocationHandle handle) {
  const Driver& driver = library_.calls;
  CUresult result = driver.cuMemMap(address, bytes, 0, handle, 0);
  if (result != CUDA_SUCCESS) return result;
  CUmemAccessDesc access = {};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = contexts_.device();
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  result = driver.cuMemSetAccess(address, bytes, &access, 1);
  if (result != CUDA_SUCCESS) driver.cuMemUnmap(address, bytes);
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
  const std::lock_guard lock(pieces_mu_);
  for (uint64_t at = address; at < address + bytes; at += kChunkBytes) {
    const auto piece = piece_at(at);
    if (piece == pieces_.end() || !(piece->second.live & chunk_bit(piece->first, at))) {
      result = CUDA_ERROR_NOT_MAPPED;
      continue;
    }
    piece->second.live &= ~chunk_bit(piece->first, at);
    if (piece->second.view_of == nullptr) mapped_bytes_ -= kChunkBytes;
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
    if (p.live == 0 && (streams.idle() || streams.done_before(p.condemned_since)) && unpinned(piece)) {
      condemned_bytes_ -= p.bytes;
      drop(piece);
    }
    piece = next;
  }
  give_back();
}

// Of a piece without live chunks: nobody can pin it any more.
bool Memory::unpinned(Pieces::iterator piece) const {
  const std::lock_guard lock(pieces_mu_);
  return piece->second.pins == 0;
}

void Memory::drop(Pieces::iterator piece) {
  const uint64_t address = piece->first;
  Piece gone = std::move(piece->second);
  {
    const std::lock_guard lock(pieces_mu_);
    pieces_.erase(piece);
  }
  const Driver& driver = library_.calls;
  contexts_.use(0);
  driver.cuMemUnmap(address, gone.bytes);
  if (gone.view_of == nullptr) {
    driver.cuMemRelease(gone.handle);
  } else {
    --views_;
  }
}

bool Memory::pin(uint64_t chunk) {
  const std::lock_guard lock(pieces_mu_);
  const auto piece = piece_at(chunk);
  if (piece == pieces_.end() || piece->second.view_of != nullptr) return false;
  if (piece->second.live == 0) return false;
  if (piece->second.name == 0 && !(piece->second.live & chunk_bit(piece->first, chunk))) return false;
  ++piece->second.pins;
  return true;
}

void Memory::unpin(uint64_t chunk) {
  const std::lock_guard lock(pieces_mu_);
  --piece_at(chunk)->second.pins;
}

Physical::~Physical() {
  for (const Part& part : parts) of.library_.calls.cuMemRelease(part.handle);
  of.discharge(charged);
}

uint64_t Physical::bytes() const {
  uint64_t sum = 0;
  for (const Part& part : parts) sum += part.bytes;
  return sum;
}

CUresult Memory::create_physical(uint64_t bytes, std::shared_ptr<Physical>* physical) {
  if (bytes == 0 || bytes % kChunkBytes != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!charge(bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  auto made = std::make_shared<Physical>(*this);
  made->charged = bytes;
  contexts_.use(0);
  const CUmemAllocationProp prop = properties(contexts_.device(), shareable_);
  for (uint64_t at = 0; at < bytes; at += kPieceBytes) {
    Physical::Part part;
    part.bytes = std::min(kPieceBytes, bytes - at);
    CUresult result = library_.calls.cuMemCreate(&part.handle, part.bytes, &prop, 0);
    if (result != CUDA_SUCCESS) return result;
    made->parts.push_back(part);
    if (!library_.memory_is_new) result = clean(part);
    if (result != CUDA_SUCCESS) return result;
  }
  *physical = std::move(made);
  return CUDA_SUCCESS;
}

// Another process may map it before this one does, so it is zeroed where nobody else sees it.
CUresult Memory::clean(const Physical::Part& part) {
  const Driver& driver = library_.calls;
  CUdeviceptr place = 0;
  CUresult result = driver.cuMemAddressReserve(&place, part.bytes, kChunkBytes, 0, 0);
  if (result != CUDA_SUCCESS) return result;
  result = back(place, part.bytes, part.handle);
  if (result == CUDA_SUCCESS) {
    result = zero(place, part.bytes);
    driver.cuMemUnmap(place, part.bytes);
  }
  driver.cuMemAddressFree(place, part.bytes);
  return result;
}

std::shared_ptr<Physical> Memory::import_physical(const std::vector<int>& fds, const std::vector<uint64_t>& bytes) {
  if (!shareable_) return nullptr;
  contexts_.use(0);
  auto made = std::make_shared<Physical>(*this);
  for (size_t i = 0; i < fds.size(); ++i) {
    Physical::Part part;
    part.bytes = bytes[i];
    void* descriptor = reinterpret_cast<void*>(intptr_t{fds[i]});
    const CUresult result = library_.calls.cuMemImportFromShareableHandle(&part.handle, descriptor,
                                                                          CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    if (result != CUDA_SUCCESS) {
      log(LogLevel::kWarning, "another process's memory cannot be imported: %s",
          error_text(library_.calls, result).c_str());
      return nullptr;
    }
    made->parts.push_back(part);
  }
  return made;
}

int Memory::export_part(const Physical::Part& part) const {
  int fd = -1;
  contexts_.use(0);
  const CUresult result =
      library_.calls.cuMemExportToShareableHandle(&fd, part.handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
  if (result == CUDA_SUCCESS) return fd;
  log(LogLevel::kWarning, "memory cannot be exported: %s", error_text(library_.calls, result).c_str());
  return -1;
}

// Nothing at all is there; *condemned: what is there has ended and waits for its work.
bool Memory::is_free(uint64_t address, uint64_t bytes, bool* condemned) {
  for (uint64_t at = address; at < address + bytes; at += kChunkBytes) {
    const auto piece = piece_at(at);
    if (piece == pieces_.end()) continue;
    *condemned = piece->second.live == 0;
    return false;
  }
  return true;
}

CUresult Memory::map_physical(uint64_t address, std::shared_ptr<Physical> physical) {
  const uint64_t bytes = physical->bytes();
  if (address % kChunkBytes != 0 || !in_range(address, bytes) || address - base_ + bytes > reserved_bytes_) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  bool condemned = false;
  if (!is_free(address, bytes, &condemned)) return condemned ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_ALREADY_MAPPED;
  contexts_.use(0);
  uint64_t at = address;
  for (const Physical::Part& part : physical->parts) {
    if (const CUresult result = back(at, part.bytes, part.handle); result != CUDA_SUCCESS) {
      if (at > address) unmap(address, at - address, 1);
      return result;
    }
    Piece piece;
    piece.bytes = part.bytes;
    piece.live = uint32_t((uint64_t{1} << (part.bytes / kChunkBytes)) - 1);
    piece.view_of = physical;
    keep(at, std::move(piece));
    ++views_;
    at += part.bytes;
  }
  return CUDA_SUCCESS;
}

CUresult Memory::parts_at(uint64_t address, uint64_t bytes, std::vector<Physical::Part>* parts, MemoryRange* span) {
  if (bytes == 0 || !in_range(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  *span = {};
  for (uint64_t at = address; at < address + bytes;) {
    const auto piece = piece_at(at);
    if (piece == pieces_.end() || piece->second.live == 0 || piece->second.view_of != nullptr) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (span->bytes == 0) span->address = piece->first;
    span->bytes += piece->second.bytes;
    parts->push_back({piece->second.handle, piece->second.bytes, piece->second.name});
    at = piece->first + piece->second.bytes;
  }
  return CUDA_SUCCESS;
}

std::vector<Memory::SharedPiece> Memory::shared_pieces() const {
  std::vector<SharedPiece> found;
  const std::lock_guard lock(pieces_mu_);
  for (const auto& [address, piece] : pieces_) {
    if (piece.name != 0 && piece.live != 0) found.push_back({address, piece.bytes, piece.name});
  }
  return found;
}

void Memory::name_pieces(const MemoryRange& span) {
  const std::lock_guard lock(pieces_mu_);
  for (auto piece = piece_at(span.address); piece != pieces_.end() && piece->first < span.address + span.bytes;
       ++piece) {
    if (piece->second.name == 0) piece->second.name = next_name_++;
  }
}

bool Memory::name_piece(const SharedPiece& piece) {
  const std::lock_guard lock(pieces_mu_);
  const auto found = pieces_.find(piece.address);
  if (found == pieces_.end() || found->second.bytes != piece.bytes || found->second.view_of != nullptr) return false;
  found->second.name = piece.name;
  next_name_ = std::max(next_name_, piece.name + 1);
  return true;
}

bool Memory::find_piece(uint64_t name, Physical::Part* part) const {
  const std::lock_guard lock(pieces_mu_);
  for (const auto& [address, piece] : pieces_) {
    if (name == 0 || piece.name != name || piece.live == 0) continue;
    *part = {piece.handle, piece.bytes, piece.name};
    return true;
  }
  return false;
}

uint64_t Memory::address_of(const Physical* physical) const {
  const std::lock_guard lock(pieces_mu_);
  for (const auto& [address, piece] : pieces_) {
    if (piece.view_of.get() == physical && piece.live != 0) return address;
  }
  return 0;
}

std::vector<std::shared_ptr<Physical>> Memory::mapped_physicals() const {
  std::vector<std::shared_ptr<Physical>> found;
  const std::lock_guard lock(pieces_mu_);
  for (const auto& [address, piece] : pieces_) {
    if (piece.view_of == nullptr || piece.live == 0) continue;
    if (found.empty() || found.back() != piece.view_of) found.push_back(piece.view_of);
  }
  return found;
}

std::vector<MemoryRange> Memory::ranges() const {
  std::vector<MemoryRange> found;
  const std::lock_guard lock(pieces_mu_);
  for (const auto& [address, piece] : pieces_) {
    if (piece.view_of != nullptr) continue;
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
