#pragma once

// The transport of RDMA networks: each side writes its ring into the far side's copy with RC writes (docs/wire.md). It
// needs libibverbs.so.1 at run time, which is loaded at first use.

#include "transport/link.h"

namespace tide {

Outcome verbs_connect(Region region, int lifeline, const char* transport_data, std::unique_ptr<Link>* link);
Outcome verbs_accept(int lifeline, int region_fd, std::string* transport_data, std::unique_ptr<Link>* link);

// Whether this machine has a port that could be used, and if not, why.
Outcome verbs_usable();

}  // namespace tide
