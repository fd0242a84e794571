#pragma once

// Sends a vGPU to another worker over a byte stream, and receives one: first its device memory, while it runs
// (server/precopy.h), then, when it is paused and idle, the rest. The first bytes authenticate the sender; nothing of a
// stream that cannot show the lease's token is looked at.

#include <cstdint>
#include <functional>
#include <string>

#include "base/outcome.h"
#include "server/chunk_carrier.h"
#include "server/chunk_slots.h"
#include "server/control.h"
#include "server/pieces.h"
#include "server/session.h"
#include "server/shelf.h"
#include "transport/stream.h"

namespace tide {

struct TransferHello {
  uint32_t magic = 0x766f6d74;
  uint32_t version = 5;
  char job[kIdBytes] = {};
  uint8_t token[kTokenBytes] = {};
  uint8_t session[16] = {};
  uint32_t vgpu = 0;
  uint32_t reserved = 0;
  uint64_t epoch = 0;  // of the new assignment
};

// Of this session under the assignment with that token (kTokenBytes) and epoch.
TransferHello hello_of(const ControlSession& session, const uint8_t* token, uint64_t epoch);

// Behind the chunks: what also a worker must know that only keeps the vGPU. The rest follows in pieces (pieces.h).
struct TransferOutline {
  uint64_t sequence = 0;  // of the last command that was executed
  uint64_t told = 0;      // Session::told()
  uint32_t objects = 0;
  uint32_t shares_host_memory = 0;  // 1: with its program, whose machine it cannot leave
  Recovery recovery;
};

// Source: introduces itself and waits until the destination agrees. The session still runs. *offer: what it offers, or
// where it is greeted once more, how far it came (verdict.h).
Outcome greet_receiver(ByteStream& stream, const TransferHello& hello, std::string* offer,
                       uint32_t timeout_ms = 30'000);
// Source: everything but device memory, which is there (Precopy::finish). `pump` is called now and then. *bytes: of
// contents that were sent. Returns when all has been sent; await_restored() then, when the destination has made it.
// Of a checkpoint: `recovery`, and what the guard has of the one before; else Session::recovery(), and null.
struct SessionMark {
  Recovery recovery;
  PiecesThere* there = nullptr;
};
Outcome send_session(Session& session, const SessionMark& mark, ByteStream& stream, const std::function<void()>& pump,
                     uint64_t* bytes);
// *stays: that the destination has gone afterwards shows in the stream (kStaysWord).
Outcome await_restored(ByteStream& stream, bool* stays = nullptr);

// What a destination offers.
struct TransferOffer {
  const ChunkSlots* slots = nullptr;  // null: none
  bool knows = false;                 // chunks, for which it can be asked (ChunkTaker::secret)
  bool returns = false;               // the source may come back (source_door.h)
  uint64_t done = 0;                  // of its frames, so far
};
// Destination: checks who is there, and tells those who are not expected; then agrees.
Outcome hear_hello(ByteStream& stream, const TransferHello& expected);
Outcome agree(ByteStream& stream, const TransferOffer& offer);
// Both.
Outcome greet_sender(ByteStream& stream, const TransferHello& expected, const TransferOffer& offer);
// Destination: everything; then the source waits for the verdict. Any thread, which is the session's owner meanwhile.
// The shelf is of chunks that the job's keepers have here; null: there is none.
Outcome receive_session(Session& session, ByteStream& stream, const ChunkWays& ways, Shelf* shelf);

}  // namespace tide
