#pragma once

// The UCX transport as the libraries see it that may not link UCX: loads libtideucx.so at first use, with UCX's memory
// hooks and signal handlers off. stream.h's functions are here, too.

#include "transport/link.h"

namespace tide {

Outcome ucx_connect(Region region, int lifeline, const char* transport_data, std::unique_ptr<Link>* link);
Outcome ucx_accept(int lifeline, int region_fd, std::string* transport_data, std::unique_ptr<Link>* link);

}  // namespace tide
