#pragma once

// The transport of RDMA networks: each side writes its ring into the far side's copy with RC writes (docs/wire.md). It
// needs libibverbs.so.1 at run time, which is loaded at first use.

#include "transport/carrier.h"

namespace tide {

Outcome verbs_connect(Region region, int lifeline, const std::string& data, std::unique_ptr<Carrier>* carrier);
Outcome verbs_listen(Region region, int lifeline, std::string* data, std::unique_ptr<Carrier>* carrier);

// Whether this machine has a port that could be used, and if not, why.
Outcome verbs_usable();

}  // namespace tide
