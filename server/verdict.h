#pragma once

// What the destination of a move says on the stream between the workers: how what it was sent was taken.

#include <cstdint>
#include <string>

#include "base/outcome.h"
#include "transport/stream.h"

namespace tide {

// Destination. After one that is not ok nothing more is said.
Outcome send_verdict(ByteStream& stream, const Outcome& outcome);
// Source: fails with what the destination says.
Outcome await_verdict(ByteStream& stream, uint32_t timeout_ms);
// Source, where the stream failed: why the destination gave up, if it has said so; else nothing.
std::string last_words(ByteStream& stream);

}  // namespace tide
