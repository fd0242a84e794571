#pragma once

// GPUs, and whether a network card reads and writes their memory itself (GPUDirect RDMA). libcuda is loaded late.

#include "tools/rdma_bench/machine.h"

namespace tide::fabric {

// Starts the driver: it must not be called before a fork. Looks at machine->rdma. Sets gpus and gpudirect.
void look_at_gpus(Machine* machine);

}  // namespace tide::fabric
