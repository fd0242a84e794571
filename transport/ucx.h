#pragma once

// The UCX transport as the libraries see it that may not link UCX: loads libtideucx.so at first use, with UCX's memory
// hooks and signal handlers off. stream.h's functions are here, too.

#include "transport/carrier.h"

namespace tide {

Outcome ucx_connect(Region region, int lifeline, const std::string& data, std::unique_ptr<Carrier>* carrier);
Outcome ucx_listen(Region region, int lifeline, std::string* data, std::unique_ptr<Carrier>* carrier);
// For a process of our own, while it has one thread: UCX's settings for good, so that no thread changes the environment
// while another one looks at it.
void ucx_settle_environment();
// Loads UCX and opens what the next of these takes.
void ucx_prepare();

}  // namespace tide
