#pragma once

// The transport of one host: the client's memfd, mapped by both sides.

#include "transport/link.h"

namespace tide {

Outcome shm_connect(Region region, int lifeline, const char* transport_data, std::unique_ptr<Link>* link);
Outcome shm_accept(int lifeline, int region_fd, std::string* transport_data, std::unique_ptr<Link>* link);

}  // namespace tide
