#pragma once

// What arrays hold, carried to another worker in a move. Both sessions are idle.

#include <functional>

#include "base/outcome.h"
#include "server/session.h"
#include "transport/stream.h"

namespace tide {

// Adds to *bytes what was sent.
Outcome send_arrays(Session& session, ByteStream& stream, const std::function<void()>& pump, uint64_t* bytes);
// Into the arrays that the state has made again.
Outcome receive_arrays(Session& session, ByteStream& stream);

}  // namespace tide
