#include "transport/ucx/plugin.h"

#include <unistd.h>

#include "transport/region.h"
#include "transport/replica_link.h"
#include "transport/ucx/carrier.h"
#include "transport/ucx/stream.h"

namespace tide {
namespace {

constexpr uint32_t kConnectTimeoutMs = 10'000;

Outcome connect_link(Region region, int lifeline, const char* transport_data, std::unique_ptr<Link>* link) {
  std::unique_ptr<Carrier> carrier;
  Outcome outcome = UcxCarrier::connect(transport_data, &carrier);
  if (!outcome.ok()) return outcome;
  auto made = std::make_unique<ReplicaLink>(region, Side::kClient, lifeline, std::move(carrier), "ucx");
  outcome = made->wait_for_far_side(kConnectTimeoutMs);
  if (!outcome.ok()) {
    made->release_lifeline();
    return outcome;
  }
  *link = std::move(made);
  return {};
}

Outcome accept_link(int lifeline, int region_fd, std::string* transport_data, std::unique_ptr<Link>* link) {
  std::unique_ptr<Carrier> carrier;
  std::string data;
  Outcome outcome = UcxCarrier::listen(&data, &carrier);
  if (!outcome.ok()) return outcome;
  Region region;
  outcome = map_private_region(&region);
  if (!outcome.ok()) return outcome;
  if (region_fd >= 0) close(region_fd);  // a client of the same host may send one; nobody needs it
  *transport_data = data;
  *link = std::make_unique<ReplicaLink>(region, Side::kWorker, lifeline, std::move(carrier), "ucx");
  return {};
}

const UcxPlugin plugin{kUcxPluginVersion, connect_link, accept_link, ucx_listen_stream, ucx_connect_stream};

}  // namespace
}  // namespace tide

extern "C" __attribute__((visibility("default"))) const tide::UcxPlugin* tide_ucx_plugin() { return &tide::plugin; }
