#pragma once

// What two sides of different releases are told: the same sentence at every door.

#include <cstdint>
#include <string>

#include "base/log.h"

namespace tide {

struct Speaker {
  const char* name;  // "the client", "this scheduler"
  uint32_t version;
};

// The older one is to be updated.
inline std::string versions_differ(const Speaker& far, const Speaker& here, const char* protocol = "protocol") {
  return format("%s speaks version %u of Tidepool's %s, %s version %u: update %s, so that both are of one release",
                far.name, far.version, protocol, here.name, here.version,
                far.version < here.version ? far.name : here.name);
}

}  // namespace tide
