#include "interpose/image_pieces.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "api/bundle.h"
#include "api/fatbin.h"

namespace tide {
namespace {

using Piece = ImagePieces::Piece;

constexpr uint64_t kKnownFlags = kFatbin64Bit | kFatbinDebug | kFatbinLinux | kFatbinLz4 | kFatbinZstd |
                                 kFatbinExactly | kFatbinFamily | kFatbinCapsule;
constexpr std::byte kZeroes[8] = {};

enum class Use { kRuns, kDoesNotRun, kUnsure };

Use use_of(const FatbinEntry& entry, unsigned capability) {
  const bool known = (entry.kind == kFatbinPtx || entry.kind == kFatbinElf) && entry.version == kFatbinEntryVersion &&
                     (entry.flags & ~kKnownFlags) == 0;
  if (!known) return Use::kUnsure;
  // Code of families and capsules is not for earlier devices; for which later ones it is, the driver knows.
  const bool later = entry.capability < capability && entry.capability / 10 != capability / 10;
  if (later && (entry.flags & (kFatbinFamily | kFatbinCapsule)) != 0) return Use::kUnsure;
  return fatbin_entry_runs(entry, capability) ? Use::kRuns : Use::kDoesNotRun;
}

struct Entry {
  Piece bytes;
  bool ptx;
  Use use;
};

template <typename T>
bool load(Piece from, T* value) {
  if (from.size() < sizeof *value) return false;
  memcpy(value, from.data(), sizeof *value);
  return true;
}

// Nothing where the layout is not exactly the known one.
std::optional<std::vector<Entry>> entries_of(Piece fatbin, unsigned capability) {
  FatbinHeader header;
  if (!load(fatbin, &header) || header.magic != kFatbinMagic || header.version != kFatbinVersion) return {};
  if (header.header_bytes != sizeof header || header.entries_bytes != fatbin.size() - sizeof header) return {};
  std::vector<Entry> entries;
  for (Piece left = fatbin.subspan(sizeof header); !left.empty();) {
    FatbinEntry entry;
    if (!load(left, &entry) || entry.header_bytes < sizeof entry || entry.header_bytes > left.size()) return {};
    if (entry.payload_bytes > left.size() - entry.header_bytes) return {};
    const uint64_t bytes = entry.header_bytes + entry.payload_bytes;
    if (bytes % 8 != 0) return {};  // the entries behind it would lie differently
    entries.push_back({left.first(bytes), entry.kind == kFatbinPtx, use_of(entry, capability)});
    left = left.subspan(bytes);
  }
  return entries;
}

// Drops what the device cannot use; false: all of them stay.
bool drop_unusable(std::vector<Entry>* entries) {
  const auto runs = [](const Entry& e) { return e.use == Use::kRuns; };
  if (std::none_of(entries->begin(), entries->end(), runs)) return false;
  // A driver that executes PTX only (softgpu/) takes newer PTX beside machine code for its device.
  const bool ptx_runs = std::any_of(entries->begin(), entries->end(), [&](const Entry& e) { return e.ptx && runs(e); });
  return std::erase_if(*entries, [&](const Entry& e) { return e.use == Use::kDoesNotRun && (!e.ptx || ptx_runs); }) !=
         0;
}

uint64_t bytes_of(const std::vector<Entry>& entries) {
  uint64_t bytes = 0;
  for (const Entry& entry : entries) bytes += entry.bytes.size();
  return bytes;
}

template <typename T>
std::byte* append_struct(const T& value, ImagePieces* out) {
  return out->append_made(std::as_bytes(std::span(&value, 1)));
}

void append_fatbin(const std::vector<Entry>& entries, ImagePieces* out) {
  append_struct(FatbinHeader{kFatbinMagic, kFatbinVersion, sizeof(FatbinHeader), bytes_of(entries)}, out);
  for (const Entry& entry : entries) out->append(entry.bytes);
}

// False, and nothing appended: it travels whole.
bool append_chosen(Piece fatbin, unsigned capability, ImagePieces* out) {
  std::optional<std::vector<Entry>> entries = entries_of(fatbin, capability);
  if (!entries || !drop_unusable(&*entries)) return false;
  append_fatbin(*entries, out);
  return true;
}

// The part of a bundle (api/bundle.h) that `left` begins with, and takes it off. False: the bundle is damaged.
bool append_part(Piece* left, unsigned capability, ImagePieces* out) {
  BundleEntry entry;
  if (!load(*left, &entry)) return false;
  const Piece behind = left->subspan(sizeof entry);
  const uint64_t name_room = (uint64_t(entry.name_bytes) + 7) / 8 * 8;
  if (name_room > behind.size() || entry.bytes >= behind.size() - name_room) return false;
  const uint64_t room = name_room + (entry.bytes + 8) / 8 * 8;
  if (room > behind.size()) return false;
  auto entries = entries_of(behind.subspan(name_room, entry.bytes), capability);
  if (entries && drop_unusable(&*entries)) {
    entry.bytes = sizeof(FatbinHeader) + bytes_of(*entries);  // a multiple of 8
    append_struct(entry, out);
    out->append(behind.first(name_room));
    append_fatbin(*entries, out);
    out->append(kZeroes);
  } else {
    out->append(left->first(sizeof entry + room));
  }
  *left = behind.subspan(room);
  return true;
}

bool append_bundle(Piece bundle, unsigned capability, ImagePieces* out) {
  BundleHeader header;
  if (!load(bundle, &header) || header.magic != kBundleMagic || header.bytes != bundle.size()) return false;
  if (BundleKind(header.kind) != BundleKind::kFatbins) return false;
  std::byte* const made = append_struct(header, out);
  Piece left = bundle.subspan(sizeof header);
  for (uint32_t i = 0; i < header.count; ++i) {
    if (!append_part(&left, capability, out)) return false;
  }
  header.bytes = out->bytes();
  memcpy(made, &header, sizeof header);
  return left.empty();
}

}  // namespace

void ImagePieces::append(Piece piece) {
  if (piece.empty()) return;
  bytes_ += piece.size();
  if (!pieces_.empty() && pieces_.back().data() + pieces_.back().size() == piece.data()) {
    pieces_.back() = {pieces_.back().data(), pieces_.back().size() + piece.size()};
  } else {
    pieces_.push_back(piece);
  }
}

std::byte* ImagePieces::append_made(Piece bytes) {
  std::byte* const to = made_.emplace_back().data();
  memcpy(to, bytes.data(), std::min(bytes.size(), kMadeBytes));
  append({to, bytes.size()});
  return to;
}

void ImagePieces::read(std::byte* to, uint64_t count) {
  while (count != 0) {
    const Piece piece = pieces_[next_].subspan(offset_);
    const uint64_t bytes = std::min<uint64_t>(count, piece.size());
    memcpy(to, piece.data(), bytes);
    to += bytes;
    count -= bytes;
    offset_ += bytes;
    if (bytes == piece.size()) ++next_, offset_ = 0;
  }
}

ImagePieces pieces_for(Piece image, unsigned capability) {
  ImagePieces chosen;
  if (capability != 0 && append_chosen(image, capability, &chosen)) return chosen;
  if (capability != 0 && append_bundle(image, capability, &chosen)) return chosen;
  ImagePieces whole;
  whole.append(image);
  return whole;
}

}  // namespace tide
