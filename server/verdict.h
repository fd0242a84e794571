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
// Source: fails with what the destination says.
Outcome await_verdict(ByteStream& stream, uint32_t timeout_ms, std::string* words = nullptr);
// Source, where the stream failed: why the destination gave up, if it has said so; else nothing.
std::string last_words(ByteStream& stream);

}  // namespace tide
