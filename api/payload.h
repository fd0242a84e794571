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

struct TextureAnswer {  // tideCreateTexture
  uint64_t handle = 0;
};

// tideCreateTexture: a CUDA_RESOURCE_DESC, whose array, if it has one, is the command's; a CUDA_TEXTURE_DESC and a
// CUDA_RESOURCE_VIEW_DESC, zero where they mean nothing.

// tideLaunch: each of attribute_count entries is a CUlaunchAttribute (72 bytes); the packed parameters follow.
inline constexpr uint64_t kLaunchAttributeBytes = 72;

}  // namespace tide
