// In place of verbs_ping.cc where there was no infiniband/verbs.h; verbs_usable() says so before this is asked.

#include "tools/bench_transport/verbs_ping.h"

namespace tide::bench {

Outcome start_verbs_ping(VerbsPingKind, int, std::unique_ptr<Ping>*) { return Outcome::fail("built without verbs"); }
int serve_verbs_ping(VerbsPingKind, int) { return 1; }

}  // namespace tide::bench
