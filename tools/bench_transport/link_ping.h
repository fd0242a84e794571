#pragma once

#include "tools/bench_transport/ping.h"

namespace tide::bench {

Outcome start_link_ping(const std::string& transport, int socket, std::unique_ptr<Ping>* ping);
int serve_link_ping(const std::string& transport, int socket);

}  // namespace tide::bench
