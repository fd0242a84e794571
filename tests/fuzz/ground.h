#pragma once

// What both sides' targets stand on: a region that is made once and is as new for each run, and a pair of sockets.

#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "tests/fuzz/input.h"
#include "transport/door.h"
#include "transport/region.h"
#include "transport/replica.h"
#include "transport/ring.h"

namespace tide::fuzz {

// Both pages are zero; the rings hold what earlier runs left in the parts that this one does not write: no reader may
// come to it.
inline Region fresh_region() {
  static const Region region = [] {
    Region made;
    if (!map_private_region(&made).ok()) abort();
    return made;
  }();
  memset(region.base, 0, kCommandRingOffset);
  new (&region.client()) ClientPage;
  region.client().region_bytes = kRegionBytes;
  return region;
}

// Bytes into a ring whose published part begins at `begin`, round its end.
inline void put_around(std::byte* ring, uint64_t size, uint64_t begin, std::span<const std::byte> bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) ring[(begin + i) % size] = bytes[i];
}

// Parcels as the bytes wish. `apply` takes them in until one is refused; `between` is called after each.
struct RawParcel {
  ParcelHeader header;
  ParcelEntry entries[kParcelEntriesMax];
  std::span<const std::byte> ring;
};

// Wishes, of which the first byte says how far they are kept: a parcel of nothing but noise is refused at its serial.
inline void read_parcel(Input& in, uint64_t serial, uint64_t received, std::span<const uint32_t> words,
                        RawParcel* parcel) {
  const auto wish = in.take<uint8_t>();
  parcel->header = {};
  parcel->header.serial = (wish & 1) != 0 ? in.take<uint64_t>() : serial;
  parcel->header.ring_begin = (wish & 2) != 0 ? in.take<uint64_t>() : received;
  parcel->header.flags = in.take<uint8_t>();
  if ((wish & 4) != 0) parcel->header.received = in.take<uint64_t>();
  parcel->ring = in.counted();
  parcel->header.ring_bytes = (wish & 8) != 0 ? in.take<uint32_t>() : uint32_t(parcel->ring.size());
  if (parcel->header.ring_bytes > parcel->ring.size()) parcel->ring = {};  // as over verbs: not in the message
  parcel->header.entry_count = in.take<uint8_t>() % (kParcelEntriesMax + 2);
  for (uint32_t i = 0; i < parcel->header.entry_count && i < kParcelEntriesMax; ++i) {
    const auto chosen = in.take<uint16_t>();
    ParcelEntry& entry = parcel->entries[i];
    entry.word = chosen < words.size() ? words[chosen] : (wish & 16) != 0 ? in.take<uint32_t>() : chosen;
    entry.reserved = (wish & 32) != 0 ? in.take<uint32_t>() : 0;
    entry.value = (wish & 64) != 0 ? in.take<uint64_t>() : in.take<uint16_t>();
  }
}

inline uint32_t index_of(Region region, const void* word) {
  return uint32_t((static_cast<const std::byte*>(word) - region.base) / 8);
}

// A frame with all of the bytes that are left: as its payload where it is to be `whole`, else as they are.
inline std::vector<std::byte> frame_bytes(Input& in, bool whole, uint16_t type) {
  const std::span<const std::byte> rest = in.rest();
  std::vector<std::byte> bytes;
  if (whole) {
    DoorHeader header;
    header.type = type;
    header.payload_bytes = uint32_t(rest.size());
    bytes.resize(sizeof header);
    memcpy(bytes.data(), &header, sizeof header);
  }
  bytes.insert(bytes.end(), rest.begin(), rest.end());
  return bytes;
}

// What receive_frame() makes of these bytes, and whatever descriptors came with them.
inline bool frame_of(std::span<const std::byte> bytes, int descriptors, bool wanted, DoorType* type,
                     std::string* payload) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) abort();
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
  iovec part{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (descriptors > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(size_t(descriptors) * sizeof(int));
    cmsghdr* const c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(size_t(descriptors) * sizeof(int));
    for (int i = 0; i < descriptors; ++i) memcpy(CMSG_DATA(c) + size_t(i) * sizeof(int), &pair[0], sizeof(int));
  }
  if (!bytes.empty()) sendmsg(pair[0], &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(pair[0], SHUT_WR);
  int fd = -1;
  const bool good = receive_frame(pair[1], 1000, type, payload, wanted ? &fd : nullptr).ok();
  if (fd >= 0) close(fd);
  close(pair[0]);
  close(pair[1]);
  return good;
}

}  // namespace tide::fuzz
