#include "softgpu/driver/views.h"

namespace softgpu {

Views::Views() : host_pages_(std::make_shared<HostPages>()), all_(host_pages_) {}

bool Views::sees(int device, const Place& place) const {
  if (!place.follows_peers) return (place.seen_by & only(device)) != 0;
  return device == place.owner || peer_uses_[static_cast<size_t>(place.owner)][static_cast<size_t>(device)] > 0;
}

void Views::show(int device, uint64_t address, const Place& place) {
  AddressSpace* view = views_[static_cast<size_t>(device)].get();
  if (view == nullptr) return;
  if (sees(device, place)) {
    view->map(address, place.host, place.bytes);
  } else {
    view->unmap(address, place.bytes);
  }
}

AddressSpace& Views::of(int device) {
  const std::lock_guard lock(mu_);
  std::unique_ptr<AddressSpace>& view = views_[static_cast<size_t>(device)];
  if (view == nullptr) {
    view = std::make_unique<AddressSpace>(host_pages_);
    for (const auto& [address, place] : places_) show(device, address, place);
  }
  return *view;
}

void Views::add(uint64_t address, const Place& place) {
  const std::lock_guard lock(mu_);
  all_.map(address, place.host, place.bytes);
  places_[address] = place;
  for (int device = 0; device < kDevicesMax; ++device) show(device, address, place);
}

void Views::remove(uint64_t address) {
  const std::lock_guard lock(mu_);
  const auto found = places_.find(address);
  if (found == places_.end()) return;
  all_.unmap(address, found->second.bytes);
  for (const auto& view : views_) {
    if (view != nullptr) view->unmap(address, found->second.bytes);
  }
  places_.erase(found);
}

void Views::set_seen_by(uint64_t address, DeviceSet devices) {
  const std::lock_guard lock(mu_);
  const auto found = places_.find(address);
  if (found == places_.end()) return;
  found->second.seen_by = devices;
  for (int device = 0; device < kDevicesMax; ++device) show(device, address, found->second);
}

void Views::set_peer(int accessor, int owner, bool enabled) {
  const std::lock_guard lock(mu_);
  uint16_t& uses = peer_uses_[static_cast<size_t>(owner)][static_cast<size_t>(accessor)];
  if (enabled ? uses++ != 0 : uses == 0 || --uses != 0) return;
  for (const auto& [address, place] : places_) {
    if (place.owner == owner && place.follows_peers) show(accessor, address, place);
  }
}

bool Views::peer(int accessor, int owner) const {
  const std::lock_guard lock(mu_);
  return accessor == owner || peer_uses_[static_cast<size_t>(owner)][static_cast<size_t>(accessor)] > 0;
}

}  // namespace softgpu
