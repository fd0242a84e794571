#include "server/contents.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/log.h"

namespace tide {
namespace {

constexpr uint32_t kSlotsInMib = (1u << 20) / kPackedPieceMax;

}  // namespace

Contents::~Contents() { release(); }

uint32_t Contents::slots_wanted() {
  const char* text = getenv("TIDE_CONTENT_CACHE");
  if (text == nullptr) return kContentSlots;
  char* end = nullptr;
  const unsigned long mib = strtoul(text, &end, 10);
  if (end != text && *end == '\0' && mib <= kContentSlotsMax / kSlotsInMib) return uint32_t(mib * kSlotsInMib);
  log(LogLevel::kWarning, "TIDE_CONTENT_CACHE is a number of MiB up to %u, not '%s'; taken as %u",
      kContentSlotsMax / kSlotsInMib, text, kContentSlots / kSlotsInMib);
  return kContentSlots;
}

// All at once, although what is never used takes no memory: what was announced must be there when it is needed.
void Contents::allow(uint32_t slots) {
  release();
  slots = std::min(slots, kContentSlotsMax);
  if (slots == 0) return;
  void* const made = mmap(nullptr, uint64_t(slots) * kPackedPieceMax, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (made == MAP_FAILED) {
    log(LogLevel::kWarning, "no memory to keep contents in (%s): the client sends them each time", strerror(errno));
    return;
  }
  memory_ = static_cast<std::byte*>(made);
  slots_.resize(slots);
}

void Contents::release() {
  if (memory_ != nullptr) munmap(memory_, uint64_t(slots_.size()) * kPackedPieceMax);
  memory_ = nullptr;
  slots_.clear();
}

std::byte* Contents::put(const Kept& kept, uint64_t bytes) {
  if (kept.slot >= slots_.size() || bytes == 0 || bytes > kPackedPieceMax) return nullptr;
  slots_[kept.slot] = {uint32_t(bytes), kept.key};
  return memory_ + uint64_t(kept.slot) * kPackedPieceMax;
}

std::span<const std::byte> Contents::kept(uint32_t slot, ContentKey* key) const {
  if (slot >= slots_.size() || slots_[slot].bytes == 0) return {};
  *key = slots_[slot].key;
  return {memory_ + uint64_t(slot) * kPackedPieceMax, slots_[slot].bytes};
}

bool Contents::decode(PackForm form, std::span<const std::byte> data, std::byte* to, uint64_t bytes) {
  if (form == PackForm::kPacked) return unpacker_.unpack(data, to, bytes);
  if (form != PackForm::kPlain || data.size() != bytes) return false;
  memcpy(to, data.data(), bytes);
  return true;
}

bool Contents::unpack(PackForm form, const Kept& named, std::span<const std::byte> data, std::byte* to,
                      uint64_t bytes) {
  if (form == PackForm::kKept) {
    ContentKey key;
    const std::span<const std::byte> content = kept(named.slot, &key);
    if (!data.empty() || content.size() != bytes || !(key == named.key)) return false;
    if (to != nullptr) memcpy(to, content.data(), bytes);
    return true;
  }
  if (named.slot == kNoContent) return to == nullptr || decode(form, data, to, bytes);
  std::byte* const place = put(named, bytes);
  if (place == nullptr) return false;
  if (!decode(form, data, place, bytes)) {
    slots_[named.slot] = {};
    return false;
  }
  if (to != nullptr) memcpy(to, place, bytes);
  return true;
}

}  // namespace tide
