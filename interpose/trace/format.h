#pragma once

// A trace as it lies in a file (docs/trace.md): a head with the table of functions, written by `tide`, then frames that
// the processes of the job append, each in one write. All numbers are little-endian.

#include <cstddef>
#include <cstdint>

namespace tide::trace {

inline constexpr char kMagic[8] = {'T', 'I', 'D', 'E', 'T', 'R', 'A', 'C'};
inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kTableBytesMax = 1u << 20;

struct FileHead {
  char magic[8];
  uint32_t version;
  uint32_t table_bytes;  // of text that follows, padded with '\n' to a multiple of 8
  uint64_t table_hash;
};
static_assert(sizeof(FileHead) == 24);

inline constexpr uint32_t kFrameMagic = 0x46746954;  // "TitF"
inline constexpr uint32_t kFrameBytesMax = 1u << 20;

enum class FrameKind : uint32_t {
  kProcess = 1,  // payload: ProcessPayload, then the words of the command, each with its 0
  kCalls = 2,    // payload: calls, see Mask
  kEnd = 3,      // payload: EndPayload
};

struct FrameHead {
  uint32_t magic;
  FrameKind kind;
  uint32_t bytes;  // of the payload; the next frame follows at the next multiple of 8
  uint32_t thread;
  uint32_t pid;
  uint32_t reserved;
  uint64_t process_ns;  // when the process began to trace: with the pid it names the process
  uint64_t base_ns;     // of kCalls: what the begins of the calls count from
  uint64_t check;       // check_of(payload)
};
static_assert(sizeof(FrameHead) == 48);

inline constexpr size_t kCommandBytesMax = 4096;  // of a process's words

struct ProcessPayload {
  uint64_t table_hash;
  uint64_t wall_seconds;
  uint32_t parent;
  uint32_t reserved;
};

struct EndPayload {
  uint64_t recorded;  // calls of the process
  uint64_t lost;      // calls that could not be written
};

// One call: varint function, zigzag begin - base_ns, varint duration, one byte of Mask, for each of its bits in order a
// varint, then the arguments by the kinds of the function's parameters:
//   u unsigned, x address or handle: varint      i signed: zigzag      f float: 4 bytes      - not recorded: nothing
//   s text: varint bytes + 1 (0: none), the bytes
//   z unsigned, p address, m 32 bits unsigned, n 32 bits signed, g float, behind a pointer that the call filled: one
//   byte of Given, and where it is kValue the value as u, x, u, i, f
enum Mask : uint8_t {
  kHasResult = 1,
  kHasCommands = 2,
  kHasSent = 4,
  kHasReceived = 8,
  kHasRoundTrips = 16,
  kHasWait = 32,
};
enum Given : uint8_t { kNull = 0, kUnread = 1, kValue = 2 };
inline constexpr size_t kTextMax = 200;  // longer texts are cut
// A call takes no more: head, 20 parameters, texts.
inline constexpr size_t kCallBytesMax = 1024;

inline uint64_t zigzag(int64_t value) { return uint64_t(value) << 1 ^ uint64_t(value >> 63); }
inline int64_t unzigzag(uint64_t value) { return int64_t(value >> 1) ^ -int64_t(value & 1); }

// FNV-1a over 64-bit words; the last is filled up with zeros.
inline uint64_t check_of(const void* data, size_t bytes) {
  const auto* from = static_cast<const unsigned char*>(data);
  uint64_t value = 0xcbf29ce484222325u;
  for (size_t at = 0; at < bytes; at += 8) {
    uint64_t part = 0;
    for (size_t i = 0; i < 8 && at + i < bytes; ++i) part |= uint64_t(from[at + i]) << (8 * i);
    value = (value ^ part) * 0x100000001b3u;
    value ^= value >> 29;
  }
  return value;
}

}  // namespace tide::trace
