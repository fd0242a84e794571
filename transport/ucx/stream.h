#pragma once

// The byte streams of stream.h over UCX active messages. docs/wire.md says every byte.

#include <memory>
#include <string>

#include "transport/stream.h"

namespace tide {

Outcome ucx_listen_stream(std::string* address, std::unique_ptr<StreamListener>* listener);
// *refused: perhaps.
Outcome ucx_connect_stream(const std::string& address, uint32_t timeout_ms, std::unique_ptr<ByteStream>* stream,
                           bool* refused);

}  // namespace tide
