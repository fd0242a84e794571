#include <cstring>

#include "transport/link.h"
#include "transport/shm.h"
#include "transport/sim.h"
#include "transport/ucx.h"
#include "transport/verbs.h"

namespace tide {

const Transport* find_transport(const char* name) {
  // Never destroyed: other people's processes may end in any order.
  static const Transport* shm = new Transport{"shm", true, shm_connect, shm_accept};
  static const Transport* ucx = new Transport{"ucx", false, ucx_connect, ucx_accept};
  static const Transport* verbs = new Transport{"verbs", false, verbs_connect, verbs_accept};
  if (name == nullptr) return nullptr;
  if (strcmp(name, "shm") == 0) return shm;
  if (strcmp(name, "ucx") == 0) return ucx;
  if (strcmp(name, "verbs") == 0) return verbs;
  if (strcmp(name, "sim") == 0 || strncmp(name, "sim:", 4) == 0) return find_sim(name);
  return nullptr;
}

}  // namespace tide
