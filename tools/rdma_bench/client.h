#pragma once

// The side that asks: measures everything that the settings name, and reports.

#include "tools/rdma_bench/settings.h"

namespace tide::fabric {

int measure(const Settings& settings);  // the exit status

}  // namespace tide::fabric
