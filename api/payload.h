#pragma once

// What follows a CommandHeader (transport/frame.h) and what an answer carries, beyond the structs of commands.h.
//
// Payload of a generated command (rows `async` and `sync`), in this order, everything 8-aligned, padding zero:
//   1. its values, handles and device addresses in the order of the parameters:
//      value   8 bytes, the value in the low ones (integers as their own size; the rest zero)
//      handle  8 bytes: CUstream, CUevent: slot; CUlibrary: its number; CUkernel, CUfunction: library << 32 | index;
//              CUdevice: ignored, a worker has one
//      device  16 bytes: address, then how many bytes behind it the call may touch
//   2. its `in` and `str` parameters in the order of the parameters: 8 bytes: how many bytes follow (of a string with
//      its NUL), then the bytes, padded to 8
// Payload of its AnswerKind::kResult: its `out` parameters in order, each padded to 8; absent where it is an error.
//
// A stage (tideStage) is complete when all of its bytes have come and is used up by the tideLoadLibrary that names it.

#include <cstdint>

namespace tide {

inline constexpr uint64_t kItemBytes = 8;

// Answer payloads of internal commands; the others have none.
struct ElapsedAnswer {  // tideElapsed
  float milliseconds = 0;
  uint32_t reserved = 0;
};

struct GlobalAnswer {  // tideGlobal; CUDA_ERROR_NOT_FOUND without a payload
  uint64_t address = 0;
  uint64_t bytes = 0;
  uint64_t managed = 0;  // 1: __managed__, to be read and written as host memory
};

struct ShareAnswer {  // tideShareMemory: the whole pieces of memory that it lies in
  uint64_t address = 0;
  uint64_t bytes = 0;
};

struct WatchAnswer {      // tideWatchEvent
  uint32_t pending = 0;   // the last record is not complete; the event's word will say when it is
  uint32_t recorded = 0;  // here, so that the event itself can be waited for
};

// tideChangedHost: the number of each page (u32, counted from the first that was asked for) and the bytes of all
// follow. It may be an answer for less than was asked for.
struct ChangedHostAnswer {
  uint64_t bytes = 0;  // that were looked at
  uint64_t pages = 0;  // that the client does not know
};
inline constexpr uint64_t kHostQuestionBytes = 16u << 20;  // of one question, at most
inline constexpr uint64_t kHostPieceBytes = 512u << 10;    // of memory that travels at once
inline constexpr uint64_t kToldBlockBytes = 64u << 10;     // of a block that is told (tideMapHost), at most,
inline constexpr uint64_t kToldBytes = 256u << 10;         // and of all of them

// tidePeerAddress, and the data of tideFetch: where a worker gives away device memory, and to whom.
inline constexpr uint64_t kPeerAddressBytes = 96, kPeerSecretBytes = 32;
struct PeerAddress {
  char address[kPeerAddressBytes] = {};  // transport/stream.h
  uint8_t secret[kPeerSecretBytes] = {};
};
struct PeerAddressAnswer {  // tidePeerAddress, as data
  uint32_t ok = 0;          // else `message` says why there is none
  uint32_t reserved = 0;
  PeerAddress peer;
  char message[200] = {};
};

// tideFetch, as data. All but kDone leave the destination's memory undefined, and the copy may be made again.
enum class FetchState : uint32_t {
  kNone,
  kDone,
  kMoving,       // the source's vGPU is about to move: ask for its address again
  kGone,         // the source went away in between: it has moved, or is dead
  kUnreachable,  // there is no way from worker to worker
  kRefused,      // the source has no such memory, or another secret
  kFailed,       // a GPU's copy failed
};
struct FetchAnswer {
  FetchState state = FetchState::kNone;
  uint32_t reserved = 0;
  char message[248] = {};
};

struct TextureAnswer {  // tideCreateTexture
  uint64_t handle = 0;
};

// tideCreateTexture: a CUDA_RESOURCE_DESC, whose array, if it has one, is the command's; a CUDA_TEXTURE_DESC and a
// CUDA_RESOURCE_VIEW_DESC, zero where they mean nothing.

// tideEncodeTensorMap: what the four functions take; dimensions beyond `rank` are zero.
enum class TensorMapKind : uint32_t { kTiled, kIm2col, kIm2colWide, kReplaceAddress };
struct TensorMapQuestion {
  TensorMapKind kind = TensorMapKind::kTiled;
  uint32_t type = 0, rank = 0, interleave = 0, swizzle = 0, promotion = 0, fill = 0, mode = 0;
  uint32_t channels = 0, pixels = 0;  // of im2col
  uint64_t address = 0;
  uint64_t lengths[5] = {}, strides[5] = {};
  uint32_t box[5] = {}, steps[5] = {};
  int32_t lower[3] = {}, upper[3] = {};
  uint8_t map[128] = {};  // whose address is replaced
};
struct TensorMapAnswer {
  uint8_t map[128] = {};
};

struct MemoryAnswer {  // tideAskMemory
  uint64_t left = 0;   // of the quota, what no process has
};

struct ClustersAnswer {  // tideClusters
  int32_t count = 0;
  uint32_t reserved = 0;
};

// tideClusters: CUlaunchAttributes, like those of a launch. `most`: the largest cluster, else how many clusters fit.
//
// tideBindReference: the name, then descriptions as of tideCreateTexture, the last of which means nothing.
inline constexpr uint64_t kReferenceNameMax = 4096;

// tideLaunch: each of attribute_count entries is a CUlaunchAttribute (72 bytes); the packed parameters follow.
inline constexpr uint64_t kLaunchAttributeBytes = 72;

}  // namespace tide
