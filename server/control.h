#pragma once

// What the agent and a worker say to each other: one packet a message on a unix socket (SOCK_SEQPACKET), which also
// tells each when the other is gone. Both are of one build, so these are plain structs; an agent that was restarted may
// be of another one, and then says and hears kControlVersion first.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/limits.h"
#include "base/outcome.h"
#include "transport/door.h"
#include "transport/layout.h"

namespace tide {

enum class ControlType : uint32_t {
  // Agent to worker.
  kServe = 1,    // ControlSession; descriptors: the client's socket, then its memfd where it sent one
  kReceive = 2,  // ControlSession: become this session, from another worker; descriptors: of a keeper, a JobShelfFiles
  kMove = 3,     // ControlMove: copy the session to another worker while it runs
  kCommit = 4,   // send the client there
  kAbort = 5,    // the move is off
  kStats = 6,
  kExit = 7,
  kSessionEnded = 8,  // SessionId: another session of the vGPU
  kAdopt = 9,         // ControlAdopt: the first word of an agent that was restarted (server/rendezvous.h)
  kPause = 10,        // ControlPause: all sessions of the vGPU are ready; come to rest
  kHold = 11,         // ControlHold
  kGuard = 12,  // ControlSession: keep checkpoints of this session (server/guard.h); kReceiving says where; as kReceive
  kCheckpoint = 13,  // ControlMove: send one to a guard, over the stream of the last one if there is no address
  kGive = 14,        // ControlMove: a guard gives its checkpoint to a worker; kTransferred or kMoveFailed
  kLease = 15,       // ControlLease
  kShares = 16,      // another process of the job uses the vGPU, too
  kUnprotect = 17,   // ControlText: another session of the vGPU cannot be protected, and so this one is not
  kSend = 18,        // all sessions of the vGPU are at rest: send what is left
  kSweep = 19,       // a keeper of the job has ended: what was only its is nobody's (server/job_shelf.h)
  // Worker to agent.
  kServing = 20,
  kReceiving = 21,     // ControlText: where the other worker shall connect (transport/stream.h)
  kRestored = 22,      // all has arrived; the client may come
  kTransferred = 23,   // ControlMoved: all has been sent and restored; paused until kCommit or kAbort
  kLeft = 24,          // ControlMoved; the client has gone; the worker ends
  kMoveFailed = 25,    // ControlText; the session runs on here
  kStatsReply = 26,    // ControlStats
  kFailed = 27,        // ControlText; the worker ends
  kAdopted = 28,       // ControlAdopted; descriptors: what came with kReceive
  kProgress = 29,      // ControlProgress: the copying goes on; about once a second
  kReady = 30,         // ControlProgress: a short pause can carry the rest
  kCheckpointed = 31,  // ControlCheckpointed: it is whole, or why not; then the one before it still stands
  kWanted = 32,        // the client cannot keep much more of what it sends: a checkpoint, soon
  kFarewell = 33,      // the worker ends, as it should
  kStill = 34,         // at rest, and stays so until kSend or kAbort
  // Between two workers of one vGPU, carried by the agent (server/sharing.h).
  kAskShared = 40,     // ControlShared: to its owner
  kSharedAnswer = 41,  // ControlShared: to its asker; descriptors: of its parts
};

inline constexpr uint32_t kControlVersion = 9;  // grows when anything here changes
inline constexpr int kControlFdsMax = 32;

// A session's 16 bytes, as two numbers.
struct SessionId {
  uint64_t low = 0, high = 0;
  bool operator==(const SessionId&) const = default;
};

// How an asker knows what it wants.
enum class SharedBy : uint32_t {
  kName = 0,   // by a name that the owner's client gave it
  kPiece = 1,  // it had this piece of memory before both came here by a move
  kEvent = 2,  // the same of an event
};

struct ControlShared {
  uint64_t question = 0;  // the asker's number
  SessionId asker;        // the agent says who
  SessionId owner;
  uint64_t name = 0;  // of the owner's: see `by`
  int32_t result = 0;
  uint32_t last = 0;  // nothing of the answer follows
  uint32_t count = 0;
  SharedBy by = SharedBy::kName;
  uint64_t bytes[kControlFdsMax] = {};  // of memory; 0: an event's page
  uint64_t names[kControlFdsMax] = {};  // of the same, by which it is asked for after a move
};

struct ControlSession {
  char job[kIdBytes] = {};
  uint8_t token[kTokenBytes] = {};
  uint8_t session[16] = {};
  uint32_t vgpu = 0;
  uint32_t client_pid = 0;
  uint64_t epoch = 0;
  uint64_t memory_bytes = 0;
  char transport[64] = {};
  uint32_t hold_ms = 0;       // kept so long for a client whose connection broke, and for an agent that died
  uint32_t again = 0;         // 1: kServe of a session that the worker has
  uint32_t attempt = 0;       // DoorOpen::attempt
  uint32_t keeps = 0;         // 1: on no GPU; the session is kept, and executes nothing (server/kept.h)
  uint32_t is_protected = 0;  // 1: checkpoints are made of it, and its client is told so
  uint32_t share = 0;         // of the GPU's time, beside other vGPUs on it (server/time_slices.h); not 0
  uint32_t shares = 0;        // 1: other processes of the job use the vGPU, too
  uint16_t latency = 0;       // 1: what it begins goes before others' on its GPU
  uint16_t siblings = 0;      // 1: nobody but vGPUs of its own job is on its GPU
};

// Who the agent believes that the worker is: the worker hears nobody else.
struct ControlAdopt {
  uint32_t version = kControlVersion;
  uint32_t reserved = 0;
  uint8_t token[kTokenBytes] = {};
  uint8_t session[16] = {};
  uint64_t epoch = 0;
};

struct ControlAdopted {
  uint32_t version = kControlVersion;
  uint32_t restored = 0;  // came by a move, and its client has not come yet
};

struct ControlMove {
  uint64_t next_epoch = 0;
  uint8_t token[kTokenBytes] = {};
  char stream_address[kEndpointBytes] = {};
  char endpoint[kEndpointBytes] = {};
  uint64_t parks = 0;  // 1: to a worker that keeps; from there it shall be able to go anywhere
};

struct ControlPause {
  uint64_t alone = 0;  // 1: no other session pauses with it, so it needs not wait for kSend
};

// The program begins nothing new while it is on, for kHoldMs at most.
struct ControlHold {
  uint64_t on = 0;
};
inline constexpr uint32_t kHoldMs = 60'000;

struct ControlProgress {
  uint64_t rounds = 0;
  uint64_t bytes = 0;       // sent so far
  uint64_t rest_bytes = 0;  // that the last round found changed
};

struct ControlMoved {
  uint64_t bytes = 0;        // in all
  uint64_t pause_bytes = 0;  // of these, in the pause
  uint64_t rounds = 0;       // the one in the pause counts, too
  uint64_t pause_ns = 0;
  uint64_t drain_ns = 0, copy_ns = 0, restore_ns = 0;  // of the pause: streams come to rest, sent, made again there
};

// As ControlMoved; the pause ends when all is on its way, the whole when the guard has it.
struct ControlCheckpointed {
  uint64_t sequence = 0;  // the last command that it contains
  ControlMoved report;
  uint64_t total_ns = 0;
  uint64_t cpu_ns = 0;  // of the thread that copied
  uint32_t failed = 0;
  uint32_t refused = 0;               // 1: of this session there can be none, for a reason that stays
  char text[kDoorMessageBytes] = {};  // why
};

// Until when commands are executed, on CLOCK_BOOTTIME; 0: without end.
struct ControlLease {
  uint64_t until_ns = 0;
};

struct ControlLink {
  uint64_t round_trip_us = 0, bytes_per_s = 0;            // ClientCounters
  uint64_t window_ns = 0, wait_ns = 0, window_bytes = 0;  // LinkMeter::Wait
};

struct ControlStats {
  uint64_t resident_bytes = 0;
  uint64_t commands = 0, round_trips = 0, bytes_in = 0, bytes_out = 0, wait_ns = 0;
  uint64_t saved_in = 0, saved_out = 0, kept_in = 0;
  uint32_t objects = 0;
  uint32_t busy_permille = 0;       // of the last second
  uint32_t quiet = 0;               // 1: all that the program began is done
  uint32_t busy_ms = 0;             // since the worker began; it goes round
  double round_trips_per_s = 0;     // of the last second, too
  uint64_t trips[kTripSlots] = {};  // words of TripCounts
  char transport[64] = {};
  ControlLink link;
  uint64_t landed_direct = 0, landed_staged = 0;  // server/copy_landings.h
  uint64_t kept_in_memory = 0, kept_on_disk = 0;  // of a session that is kept; of shared chunks its part
  uint64_t kept_apart = 0;                        // that it would take if equal chunks were not kept once
};

struct ControlText {
  char text[kDoorMessageBytes] = {};
};

inline constexpr size_t kControlPayloadMax = 2048;

struct ControlMessage {
  ControlType type{};
  alignas(8) std::byte payload[kControlPayloadMax];
  size_t bytes = 0;
  int fds[kControlFdsMax];  // the receiver owns them; -1: none

  template <class T>
  T* as() {
    return bytes == sizeof(T) ? reinterpret_cast<T*>(payload) : nullptr;
  }
};

// The socket pair; both ends are non-blocking and close-on-exec.
Outcome make_control_pair(int* agent, int* worker);
// False when the far side is gone or does not read.
bool send_control(int socket, ControlType type, const void* payload, size_t bytes, const int* fds = nullptr,
                  int fd_count = 0);
template <class T>
bool send_control(int socket, ControlType type, const T& payload) {
  return send_control(socket, type, &payload, sizeof(T));
}
enum class ControlState { kMessage, kNothing, kGone };
ControlState receive_control(int socket, ControlMessage* message);

}  // namespace tide
