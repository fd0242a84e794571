#pragma once

// What two workers say to each other when one fetches device memory from the other, over a stream of
// transport/stream.h. docs/wire.md, Copies between vGPUs, tells the order. Plain structs, little endian.

#include <cstdint>

#include "api/payload.h"
#include "server/peer_lane.h"

namespace tide {

inline constexpr uint32_t kPeerMagic = 0x72656570;  // "peer"
inline constexpr uint32_t kPeerVersion = 1;

// Fetcher -> source, once.
struct PeerHello {
  uint32_t magic = kPeerMagic;
  uint32_t version = kPeerVersion;
  uint8_t secret[kPeerSecretBytes] = {};
  char host[64] = {};  // this_host_id()
};
// Source -> fetcher: the answer to a hello, and to each request.
struct PeerVerdict {
  FetchState state = FetchState::kNone;  // kDone: go on
  char message[188] = {};
};
// Source -> fetcher, behind the hello's verdict. pid 0: of another machine, the slots cannot be mapped.
struct PeerSlotsOffer {
  int32_t pid = 0;
  int32_t fd = 0;
  uint8_t nonce[kPeerNonceBytes] = {};
};
// Fetcher -> source. `mapped`: the bytes stay in the source's slots, slot n % kPeerSlots for part n.
struct PeerRequest {
  uint64_t address = 0, pitch = 0, width = 0, height = 0;
  uint64_t mapped = 0;
};
// Source -> fetcher, for each part of the rectangle (base/parts.h) in order; its bytes follow unless they are mapped.
struct PeerPiece {
  uint64_t bytes = 0;  // 0: a verdict follows, and nothing more of this request
};
// Fetcher -> source, for each part in order: its slot is free.
struct PeerTaken {
  uint64_t part = 0;
};

}  // namespace tide
