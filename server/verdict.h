#pragma once

// What the destination of a move says on the stream between the workers: how what it was sent was taken.

#include <cstdint>
#include <string>

#include "base/outcome.h"
#include "transport/stream.h"

namespace tide {

// Destination. After one that is not ok nothing more is said. `words`: with one that is ok, for who knows them; others
// do not look.
Outcome send_verdict(ByteStream& stream, const Outcome& outcome, const std::string& words = {});
// Such words, when all is there: the destination keeps the stream for as long as it has the vGPU, or until the source
// ends the stream.
inline constexpr const char* kStaysWord = "stays";
// Of a greeting, behind what is offered: the destination can be asked for chunks (ChunkFrameKind::kAsk).
inline constexpr const char* kKnowsWord = "knows";
// Of a greeting, and behind it a number: where the stream breaks the source may come back over another, to go on behind
// so many frames of chunks. Older sources do not look for it; it is in the first line, as what is offered, because of
// these.
inline constexpr const char* kReturnsWord = "returns";
std::string returns_words(uint64_t done);
// False: they do not say so.
bool read_returns(const std::string& words, uint64_t* done);
// Source: fails with what the destination says.
Outcome await_verdict(ByteStream& stream, uint32_t timeout_ms, std::string* words = nullptr);
// Source, where the stream failed: why the destination gave up, if it has said so; else nothing.
std::string last_words(ByteStream& stream);

}  // namespace tide
