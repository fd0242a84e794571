#pragma once

// What the worker found in a loaded image: payload of AnswerKind::kLibrary, sent in one or more records (a record is at
// most kRecordBytesMax; `AnswerHeader::offset` orders the parts, flags 1 marks the last).
//
// Bytes: LibraryHeader, then kernel_count times { KernelHeader, name bytes (no NUL), zero padding to 8,
// param_count x ParamEntry }.
// A kernel's number on the wire is library << 32 | its index here.

#include <cstdint>

namespace tide {

inline constexpr uint16_t kLibraryLastPart = 1;

inline constexpr uint64_t kNamedImageBytesLeast = 64u << 10;  // smaller ones are sent sooner than looked for
inline constexpr int32_t kImageNotHere = -1;  // the server does not have what tideStageKnown named: it is to be sent

struct LibraryHeader {
  // CUresult of the load, or kImageNotHere; on failure kernel_count is 0 and the message follows as text.
  int32_t result = 0;
  uint32_t kernel_count = 0;
  uint32_t message_bytes = 0;  // of a failed load, after this header
  uint32_t reserved = 0;
};

struct KernelHeader {
  uint32_t name_bytes = 0;
  uint32_t param_count = 0;
  uint32_t param_bytes = 0;  // end of the last parameter
  uint32_t max_threads_per_block = 0;
};

struct ParamEntry {
  uint32_t offset = 0;
  uint32_t bytes = 0;
};

}  // namespace tide
