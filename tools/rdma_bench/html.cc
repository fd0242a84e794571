#include "tools/rdma_bench/report.h"

namespace tide::fabric {
Outcome write_html(const Report&, const std::string&) { return Outcome::fail("later"); }
}  // namespace tide::fabric
