#include <unistd.h>

#include "transport/region.h"
#include "transport/replica_link.h"
#include "transport/verbs.h"
#include "transport/verbs/carrier.h"

namespace tide {
namespace {

constexpr uint32_t kConnectTimeoutMs = 10'000;

}  // namespace

Outcome verbs_connect(Region region, int lifeline, const char* transport_data, std::unique_ptr<Link>* link) {
  std::unique_ptr<Carrier> carrier;
  Outcome outcome = VerbsCarrier::connect(region, lifeline, transport_data, &carrier);
  if (!outcome.ok()) return outcome;
  auto made = std::make_unique<ReplicaLink>(region, Side::kClient, lifeline, std::move(carrier), "verbs");
  outcome = made->wait_for_far_side(kConnectTimeoutMs);
  if (!outcome.ok()) {
    made->release_lifeline();
    return outcome;
  }
  *link = std::move(made);
  return {};
}

Outcome verbs_accept(int lifeline, int region_fd, std::string* transport_data, std::unique_ptr<Link>* link) {
  Region region;
  Outcome outcome = map_private_region(&region);
  if (!outcome.ok()) return outcome;
  std::unique_ptr<Carrier> carrier;
  outcome = VerbsCarrier::listen(region, lifeline, transport_data, &carrier);
  if (!outcome.ok()) {
    unmap_region(region);
    return outcome;
  }
  if (region_fd >= 0) close(region_fd);  // a client of the same host may send one; nobody needs it
  *link = std::make_unique<ReplicaLink>(region, Side::kWorker, lifeline, std::move(carrier), "verbs");
  return {};
}

Outcome verbs_usable() {
  VerbsWish wish;
  const Outcome outcome = VerbsWish::from_environment(&wish);
  VerbsPort port;
  return outcome.ok() ? port.open(wish) : outcome;
}

}  // namespace tide
