#pragma once

// The records of a channel's two rings, byte for byte (docs/wire.md). Little endian; every record starts at a multiple
// of 16 and is contiguous: a record that would cross the ring's end is preceded by a padding record (call or kind 0).

#include <cstdint>

namespace tide {

inline constexpr uint64_t kRecordAlign = 16;

// Client -> worker. Payload follows the header.
struct CommandHeader {
  uint32_t bytes = 0;     // header + payload + padding; a multiple of kRecordAlign
  uint16_t call = 0;      // tide::Call; 0 pads to the ring's end
  uint16_t flags = 0;     // kCommandAnswer
  uint64_t sequence = 0;  // 1, 2, 3 ... within the vGPU; padding has the next command's
  uint32_t context = 0;   // the client's number of the context to run in; 0: none
  uint32_t stream = 0;    // the stream slot that the work is on, or kNoStream
  uint32_t payload_bytes = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(CommandHeader) == 32);

inline constexpr uint16_t kCommandAnswer = 1;  // the client waits for an answer record
inline constexpr uint32_t kNoStream = 0xffffffff;

// Worker -> client.
enum class AnswerKind : uint16_t {
  kPad = 0,
  kResult = 1,   // of a command with kCommandAnswer; payload: its outputs
  kData = 2,     // bytes of a tideCopyOut, in pieces; `offset` says where they belong
  kLibrary = 3,  // what a tideLoadLibrary found (api/library_info.h)
  kText = 4,     // for the job's standard output (result 1) or error (result 2): what a kernel printed
  kPage = 5,  // of host memory that is told (docs/wire.md); `offset` is its address, `sequence` the last command that
              // had been executed when it was read
  kPackedData = 6,  // kData, packed; `result`: its bytes before
};

// A flag of kData in the client's own copy of the ring: the payload is not there, but where it belongs (arriving.h).
// Never on the wire.
inline constexpr uint16_t kAnswerLanded = 0x8000;

struct AnswerHeader {
  uint32_t bytes = 0;
  uint16_t kind = 0;  // AnswerKind
  uint16_t flags = 0;
  uint64_t sequence = 0;  // of the command that this answers
  int32_t result = 0;     // CUresult; of kText and kPackedData as said there
  uint32_t payload_bytes = 0;
  uint64_t offset = 0;  // kData: bytes from the start of the copied rectangle (rows packed)
};
static_assert(sizeof(AnswerHeader) == 32);

}  // namespace tide
