#pragma once

// A channel's memory: one region, owned by the client, in which both sides meet. On one host it is one memfd mapped
// twice; between hosts each side has a copy and the transport keeps them equal. docs/wire.md says every byte.
//
// The client's page is written by the client only, the worker's page (the completion page) by the worker only. Cursors
// count bytes since the channel began and never wrap; ring position = cursor % ring size.
// The region outlives connections: when a vGPU moves, the new worker gets the same region and goes on at
// `command_tail`, so what was not consumed is not lost and nothing is sent twice.

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tide {

inline constexpr uint32_t kRegionMagic = 0x65646974;  // "tide"
inline constexpr uint32_t kRegionVersion = 10;

inline constexpr uint64_t kCommandRingBytes = 16u << 20;
inline constexpr uint64_t kAnswerRingBytes = 16u << 20;
inline constexpr uint64_t kRecordBytesMax = 1u << 20;  // one record; larger transfers are cut by the sender

inline constexpr uint32_t kStreamSlots = 4096;  // streams alive at once on a vGPU
inline constexpr uint32_t kEventSlots = 65536;  // events alive at once on a vGPU
inline constexpr uint32_t kSignalSlots = 1024;  // stream waits for something outside of the vGPU, at once
inline constexpr uint32_t kEndpointBytes = 512;

inline constexpr uint32_t kTripSlots = 64;  // functions of the driver API whose round trips are counted apart

using Word = std::atomic<uint64_t>;
static_assert(Word::is_always_lock_free);

// What the client library counts, for `tide job` and tools/bench. Written by the client, read by the worker.
struct ClientCounters {
  Word commands{0};
  Word round_trips{0};  // waits for an answer or for a completion that was not there yet
  Word bytes_in{0};     // host to device
  Word bytes_out{0};    // device to host
  Word wait_ns{0};      // for the worker, also for room in the ring; those that are under way included
  Word reconnects{0};
  Word saved_in{0};   // of bytes_in: what needed not be carried, because it was packed or kept (pack.h)
  Word saved_out{0};  // of bytes_out
  Word kept_in{0};    // of saved_in: what was named and not sent
  // No counts: the network to the worker, as measured last. 0: not known, or there is none.
  Word link_round_trip_us{0};
  Word link_bytes_per_s{0};  // of what goes to the worker (link_rate.h)
};

// Round trips by the function of the driver API that waited: each word is its number (api/*.api) and, in the lower
// kCountBits, how many. A function takes the first free word from its number on; when all are taken, further
// functions are in ClientCounters::round_trips only. No lock, no allocation.
struct TripCounts {
  static constexpr int kCountBits = 48;

  Word words[kTripSlots] = {};

  void count(uint16_t function) {
    for (uint32_t i = 0; i < kTripSlots && function != 0; ++i) {
      Word& word = words[(function + i) % kTripSlots];
      uint64_t seen = word.load(std::memory_order_relaxed);
      const uint64_t first = uint64_t{function} << kCountBits | 1;
      if (seen == 0 && word.compare_exchange_strong(seen, first, std::memory_order_relaxed)) return;
      if (seen >> kCountBits != function) continue;
      word.fetch_add(1, std::memory_order_relaxed);
      return;
    }
  }
  static uint16_t function_of(uint64_t word) { return uint16_t(word >> kCountBits); }
  static uint64_t count_of(uint64_t word) { return word & ((uint64_t{1} << kCountBits) - 1); }
};

struct ClientPage {
  uint32_t magic = kRegionMagic;
  uint32_t version = kRegionVersion;
  uint64_t region_bytes = 0;
  alignas(64) Word command_head{0};               // bytes published
  alignas(64) Word answer_tail{0};                // bytes read
  alignas(64) std::atomic<uint32_t> doorbell{0};  // futex word on which an idle worker sleeps
  std::atomic<uint32_t> asleep{0};                // how many client threads sleep on WorkerPage::wake
  alignas(64) ClientCounters counters;
  // A worker without a session may begin behind this sequence number: the client has given the one before up. 0: none.
  Word renewed{0};
  // Of a protected session (docs/wire.md, Recovery). The epoch of the worker from a checkpoint for which this region
  // has been set back; the last sequence number when a checkpoint was asked for: wanted while above safe_sequence; and
  // why the client has ended the protection.
  Word recovered{0};
  Word checkpoint_wanted{0};
  Word unprotected{0};  // Unprotected
  alignas(64) TripCounts trips;
  alignas(64) Word signals[kSignalSlots];  // tideWaitSignal waits for signals[slot] >= value
};

// Why what a client did since its last checkpoint cannot be done again by another worker.
enum class Unprotected : uint64_t {
  kNo = 0,
  kHostMemory = 1,  // kernels reach memory of the program
  kSharing = 2,     // another process has memory or events of it, or it has theirs
  kError = 3,       // a command failed after it had been sent
  kLogFull = 4,     // no checkpoint was made for long, though the log is full
  kRenewed = 5,     // it began again after an error
  kLogMemory = 6,   // the program's machine has no memory for the log
};

enum class ChannelState : uint64_t {
  kNew = 0,  // no worker has taken the region yet
  kLive = 1,
  kPaused = 2,  // a move is under way: commands may be written, none is consumed
  kMoved = 3,   // next_endpoint and next_epoch say where to
  kFailed = 4,  // the vGPU is lost; `error` says how
  kEnded = 5,   // as the client wished (tideEnd): it may have a worker without a session now
  kFenced = 6,  // of a protected session: nothing is executed until its server is heard by the scheduler again
};

struct WorkerPage {
  Word state{0};  // ChannelState
  Word epoch{0};  // of the assignment that this worker serves
  Word next_epoch{0};
  char next_endpoint[kEndpointBytes] = {};  // NUL-terminated; an agent's endpoint string (transport/door.h)
  // Of the last checkpoint that is whole: where the answer ring stood, and, stored after that, the last command that it
  // contains. 0: there is none; ~0: the session is protected no more.
  Word safe_answers{0};
  Word safe_sequence{0};
  alignas(64) Word command_tail{0};             // bytes consumed: free for the client, and where the next worker begins
  Word acknowledged{0};                         // last sequence number executed
  alignas(64) Word answer_head{0};              // bytes published
  alignas(64) std::atomic<uint32_t> asleep{0};  // 0, or the doorbell value it sleeps on with bit 31 set (wait.h)
  std::atomic<uint32_t> wake{0};                // futex word on which waiting clients sleep
  // First error of an asynchronous command: CUresult, and the sequence number of the command where known. A sticky one
  // stays; the client clears its own view of another after reporting it once (`errors` counts, so none is missed).
  alignas(64) Word error{0};
  Word error_sequence{0};
  Word errors{0};            // increases with every new error
  Word sticky{0};            // 1: the context is lost (CUDA's sticky errors)
  Word staging_unwanted{0};  // 1: the client's staging memory is in the way of a move
  Word content_slots{0};     // how many pieces of content the worker keeps for the client (pack.h)
  Word held{0};              // not 0: the program begins nothing new; changes each time that this is wanted again
  // The epoch of the worker that has heard of another process on this vGPU: the client says how much memory it has, and
  // asks before it takes more. 0: there was none.
  Word memory_shared{0};
  alignas(64) Word stream_progress[kStreamSlots];  // all work up to this sequence number on that stream is done
  Word event_done[kEventSlots];                    // sequence number of the last tideRecordEvent that has completed
};

// Where things lie in the region.
inline constexpr uint64_t align_up(uint64_t n, uint64_t a) { return (n + a - 1) / a * a; }
inline constexpr uint64_t kClientPageOffset = 0;
inline constexpr uint64_t kWorkerPageOffset = align_up(sizeof(ClientPage), 4096);
inline constexpr uint64_t kCommandRingOffset = align_up(kWorkerPageOffset + sizeof(WorkerPage), 4096);
inline constexpr uint64_t kAnswerRingOffset = kCommandRingOffset + kCommandRingBytes;
inline constexpr uint64_t kRegionBytes = kAnswerRingOffset + kAnswerRingBytes;

// A view of a mapped region; owns nothing.
struct Region {
  std::byte* base = nullptr;
  ClientPage& client() const { return *reinterpret_cast<ClientPage*>(base + kClientPageOffset); }
  WorkerPage& worker() const { return *reinterpret_cast<WorkerPage*>(base + kWorkerPageOffset); }
  std::byte* commands() const { return base + kCommandRingOffset; }
  std::byte* answers() const { return base + kAnswerRingOffset; }
};

}  // namespace tide
