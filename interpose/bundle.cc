#include "interpose/bundle.h"

#include <cstring>
#include <utility>

#include "interpose/image.h"

namespace tide {

Bundle::Bundle(BundleKind kind) : kind_(kind), bytes_(sizeof(BundleHeader)) {}

void Bundle::add(uint32_t type, std::string_view name, const void* data, uint64_t bytes) {
  BundleEntry entry;
  entry.type = type;
  entry.name_bytes = uint32_t(name.size());
  entry.bytes = bytes;
  const size_t at = bytes_.size();
  const size_t name_room = (name.size() + 7) / 8 * 8;
  bytes_.resize(at + sizeof entry + name_room + (bytes + 8) / 8 * 8);
  memcpy(bytes_.data() + at, &entry, sizeof entry);
  if (!name.empty()) memcpy(bytes_.data() + at + sizeof entry, name.data(), name.size());
  if (bytes != 0) memcpy(bytes_.data() + at + sizeof entry + name_room, data, bytes);
  ++count_;
}

std::vector<std::byte> Bundle::take() {
  BundleHeader header;
  header.kind = uint32_t(kind_);
  header.count = count_;
  header.bytes = bytes_.size();
  memcpy(bytes_.data(), &header, sizeof header);
  count_ = 0;
  return std::exchange(bytes_, std::vector<std::byte>(sizeof(BundleHeader)));
}

std::vector<std::byte> bundle_of_wrapper(const void* wrapper) {
  const Fatbins fatbins = fatbins_of(wrapper);
  Bundle bundle(BundleKind::kFatbins);
  bundle.add(0, {}, fatbins.linked.data, fatbins.linked.bytes);
  for (size_t i = 0; fatbins.units[i] != nullptr; ++i) {
    const Image unit = find_image(fatbins.units[i]);
    if (unit.kind != ImageKind::kFatbin || i >= kBundleEntriesMax) return {};
    bundle.add(0, {}, unit.data, unit.bytes);
  }
  return bundle.take();
}

}  // namespace tide
