#include "tools/bench_transport/ping.h"

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "tools/bench_transport/link_ping.h"
#include "tools/bench_transport/raw_ping.h"
#include "tools/bench_transport/ucx_ping.h"
#include "tools/bench_transport/verbs_ping.h"

namespace tide::bench {

constexpr int kBatch = 10;

double Ping::measure(int round_trips) {
  std::vector<double> batches;
  for (int i = 0; i < kBatch * 2; ++i) {
    if (!round_trip()) return 0;  // wakes the other side, and warms up
  }
  for (int done = 0; done < round_trips; done += kBatch) {
    const uint64_t begin = now_ns();
    for (int i = 0; i < kBatch; ++i) {
      if (!round_trip()) return 0;
    }
    batches.push_back(double(now_ns() - begin) / kBatch);
  }
  std::nth_element(batches.begin(), batches.begin() + long(batches.size() / 2), batches.end());
  return batches[batches.size() / 2];
}

Outcome start_ping(const std::string& kind, int socket, std::unique_ptr<Ping>* ping) {
  if (kind == "raw") return start_raw_ping(socket, ping);
  if (kind == "ucx-raw") return start_ucx_ping(socket, ping);
  if (kind == "verbs-raw") return start_verbs_ping(VerbsPingKind::kImmediate, socket, ping);
  if (kind == "verbs-poll") return start_verbs_ping(VerbsPingKind::kPolledWord, socket, ping);
  return start_link_ping(kind, socket, ping);
}

int serve(const std::string& role, int socket) {
  if (role == "raw") return serve_raw_ping(socket);
  if (role == "ucx-raw") return serve_ucx_ping(socket);
  if (role == "verbs-raw") return serve_verbs_ping(VerbsPingKind::kImmediate, socket);
  if (role == "verbs-poll") return serve_verbs_ping(VerbsPingKind::kPolledWord, socket);
  return serve_link_ping(role, socket);
}

}  // namespace tide::bench
