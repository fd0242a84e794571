#pragma once

// Which of UCX's transports a process uses.

#include <string>

#include "base/outcome.h"

namespace tide {

// For UCX_TLS: the user's wish (TIDE_UCX_TLS, UCX_TLS), else ours; without RDMA where too little memory may be locked
// for it, and a failure where that is what the user wishes.
Outcome choose_transports(std::string* transports);
// Whether a worker of a context that has these may lock what it needs; in one line, with the numbers, if not.
Outcome room_for_another(const std::string& transports);
// Whether UCX found anything for them that leaves a process's own machine, by its own description of the context
// (ucp_context_print_info). Without, it would begin to connect, and crash.
Outcome reaches_others(const std::string& transports, const std::string& description);
// What to say when UCX finds no device for them.
Outcome no_device_for(const std::string& transports);

}  // namespace tide
