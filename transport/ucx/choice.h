#pragma once

// Which of UCX's transports a process uses.

#include <string>

#include "base/outcome.h"

namespace tide {

// For UCX_TLS: the user's wish (TIDE_UCX_TLS, UCX_TLS), else ours; without RDMA where too little memory may be locked
// for it, and a failure where that is what the user wishes.
Outcome choose_transports(std::string* transports);
// What to say when UCX finds no device for them.
Outcome no_device_for(const std::string& transports);

}  // namespace tide
