#pragma once

// Sends a vGPU to another worker over a byte stream, and receives one: first its device memory, while it runs
// (server/precopy.h), then, when it is paused and idle, the rest. The first bytes authenticate the sender; nothing of a
// stream that cannot show the lease's token is looked at.

#include <cstdint>
#include <functional>
#include <string>

#include "base/outcome.h"
#include "server/chunk_slots.h"
#include "server/control.h"
#include "server/pieces.h"
#include "server/session.h"
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

// Source: introduces itself and waits until the destination agrees. The session still runs. *offer: of slots
// (ChunkSlots::take).
Outcome greet_receiver(ByteStream& stream, const TransferHello& hello, std::string* offer);
// Source: everything but device memory, which is there (Precopy::finish). `pump` is called now and then. *bytes: of
// contents that were sent. Returns when all has been sent; await_restored() then, when the destination has made it.
// Of a checkpoint: `recovery`, and what the guard has of the one before; else Session::recovery(), and null.
struct SessionMark {
  Recovery recovery;
  PiecesThere* there = nullptr;
};
Outcome send_session(Session& session, const SessionMark& mark, ByteStream& stream, const std::function<void()>& pump,
                     uint64_t* bytes);
Outcome await_restored(ByteStream& stream);

// Destination: checks who is there and agrees. `slots`: are offered; null: there are none.
Outcome greet_sender(ByteStream& stream, const TransferHello& expected, const ChunkSlots* slots);
// Destination: everything; then the source waits for the verdict. Any thread, which is the session's owner meanwhile.
Outcome receive_session(Session& session, ByteStream& stream, ChunkSlots* slots);

}  // namespace tide
