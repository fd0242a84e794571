#pragma once

#include "tools/bench_transport/ping.h"

namespace tide::bench {

Outcome start_verbs_ping(std::unique_ptr<Ping>* ping);
int serve_verbs_ping(int socket);

}  // namespace tide::bench
