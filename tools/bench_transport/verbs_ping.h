#pragma once

#include "tools/bench_transport/ping.h"

namespace tide::bench {

// How the receiver learns of a message: by a completion, or because the last word of it changes.
enum class VerbsPingKind { kImmediate, kPolledWord };

Outcome start_verbs_ping(VerbsPingKind kind, int socket, std::unique_ptr<Ping>* ping);
int serve_verbs_ping(VerbsPingKind kind, int socket);

}  // namespace tide::bench
