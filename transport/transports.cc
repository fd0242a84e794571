#include <cstdlib>
#include <cstring>

#include "base/log.h"
#include "base/threads.h"
#include "transport/choice.h"
#include "transport/link.h"
#include "transport/rdma.h"
#include "transport/replica_link.h"
#include "transport/shm.h"
#include "transport/sim.h"
#include "transport/ucx.h"
#include "transport/verbs.h"

namespace tide {
namespace {

CarrierKind verbs_kind() { return {"verbs", verbs_connect, verbs_listen}; }
CarrierKind ucx_kind() { return {"ucx", ucx_connect, ucx_listen, ucx_prepare}; }

// UCX must not take memory that verbs needs.
void fastest_prepare() {
  if (!Memlock::now().limited) ucx_prepare();
}

CarrierKind fastest_kind() {
  using namespace std::placeholders;
  const std::vector<CarrierKind> kinds{verbs_kind(), ucx_kind()};
  return {"fastest", std::bind(ChoiceCarrier::connect, kinds, _1, _2, _3, _4),
          std::bind(ChoiceCarrier::listen, kinds, _1, _2, _3, _4), fastest_prepare};
}

}  // namespace

Preparation::Preparation(const Transport& transport) {
  if (!transport.prepare) return;
  const SignalsBlocked blocked;
  const Outcome started = thread_.start(transport.prepare);
  // What needs a thread says so itself.
  if (!started.ok()) log(LogLevel::kDebug, "%s is not prepared: %s", transport.name, started.message().c_str());
}

Preparation::~Preparation() {
  if (thread_.joinable()) thread_.join();
}

const Transport* find_transport(const char* name) {
  // Never destroyed: other people's processes may end in any order.
  static const auto* known = new Transport[]{{"shm", true, shm_connect, shm_accept},
                                             carried_by(verbs_kind(), false),
                                             carried_by(ucx_kind(), false),
                                             carried_by(fastest_kind(), false)};
  if (name == nullptr) return nullptr;
  for (int i = 0; i < 4; ++i) {
    if (strcmp(name, known[i].name) == 0) return &known[i];
  }
  if (strcmp(name, "sim") == 0 || strncmp(name, "sim:", 4) == 0) return find_sim(name);
  return nullptr;
}

const char* transport_between_hosts() {
  static const bool has_verbs = [] {
    const char* const wish = getenv("TIDE_VERBS_DEVICE");
    const bool is_asked_for = wish != nullptr && wish[0] != '\0';
    // Where there is no device, libibverbs is not even loaded.
    if (!is_asked_for && !has_rdma_device()) return false;
    const Outcome usable = verbs_usable();
    if (!usable.ok()) {
      log(is_asked_for ? LogLevel::kWarning : LogLevel::kInfo, "ucx is used: %s", usable.message().c_str());
    }
    return usable.ok();
  }();
  return has_verbs ? "fastest" : "ucx";
}

}  // namespace tide
