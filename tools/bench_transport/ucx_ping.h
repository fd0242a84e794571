#pragma once

#include "tools/bench_transport/ping.h"

namespace tide::bench {

Outcome start_ucx_ping(int socket, std::unique_ptr<Ping>* ping);
int serve_ucx_ping(int socket);

}  // namespace tide::bench
